"""A peer: Flask, Flask-SQLAlchemy and psycopg, as their guides have them, under gunicorn with threads."""

import os
import uuid
from datetime import datetime

from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import FetchedValue
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:")
db = SQLAlchemy(app, model_class=Base)


class Note(db.Model):
    __tablename__ = "notes"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=FetchedValue())
    text: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())
    updated_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())

    def as_dict(self):
        return {
            "id": self.id,
            "text": self.text,
            "created_at": self.created_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
        }


@app.post("/notes")
def create():
    note = Note(text=request.json["text"])
    db.session.add(note)
    db.session.commit()
    return note.as_dict(), 201


@app.get("/notes/<uuid:note_id>")
def find(note_id):
    return db.get_or_404(Note, note_id).as_dict()


@app.get("/notes")
def page():
    statement = db.select(Note).order_by(Note.id.desc()).limit(request.args.get("limit", 20, type=int))
    items = [note.as_dict() for note in db.session.scalars(statement)]
    return {"items": items, "next": f"/notes?after={items[-1]['id']}"}


@app.get("/livez")
def livez():
    return {"status": "alive"}
