"""A peer: FastAPI, SQLModel and psycopg, as their guides have them, under uvicorn."""

import os
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import FetchedValue
from sqlmodel import Field, Session, SQLModel, create_engine, select

engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:"))
app = FastAPI()


class NoteBase(SQLModel):
    text: str


class NotePublic(NoteBase):
    id: uuid.UUID
    created_at: datetime
    updated_at: datetime


class Note(NoteBase, table=True):
    __tablename__ = "notes"
    id: uuid.UUID = Field(default=None, primary_key=True, sa_column_kwargs={"server_default": FetchedValue()})
    created_at: datetime = Field(default=None, sa_column_kwargs={"server_default": FetchedValue()})
    updated_at: datetime = Field(default=None, sa_column_kwargs={"server_default": FetchedValue()})


class Page(SQLModel):
    items: list[NotePublic]
    next: str


def session() -> Iterator[Session]:
    with Session(engine) as opened:
        yield opened


SessionDep = Annotated[Session, Depends(session)]


@app.post("/notes", status_code=201, response_model=NotePublic)
def create(body: NoteBase, session: SessionDep):
    note = Note.model_validate(body)
    session.add(note)
    session.commit()
    session.refresh(note)
    return note


@app.get("/notes/{note_id}", response_model=NotePublic)
def find(note_id: uuid.UUID, session: SessionDep):
    note = session.get(Note, note_id)
    if note is None:
        raise HTTPException(404)
    return note


@app.get("/notes", response_model=Page)
def page(session: SessionDep, limit: int = 20):
    items = session.exec(select(Note).order_by(Note.id.desc()).limit(limit)).all()
    return {"items": items, "next": f"/notes?after={items[-1].id}"}


@app.get("/livez")
def livez():
    return {"status": "alive"}
