"""A peer: FastAPI, SQLAlchemy's asyncio and asyncpg, as their guides have them, under uvicorn."""

import os
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import FetchedValue, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine(os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+asyncpg:"))
sessions = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=FetchedValue())
    text: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())
    updated_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())


class NoteIn(BaseModel):
    text: str


class NoteOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    text: str
    created_at: datetime
    updated_at: datetime


class PageOut(BaseModel):
    items: list[NoteOut]
    next: str


async def session() -> AsyncIterator[AsyncSession]:
    async with sessions() as opened:
        yield opened


Session = Annotated[AsyncSession, Depends(session)]


@app.post("/notes", status_code=201, response_model=NoteOut)
async def create(body: NoteIn, session: Session):
    note = Note(text=body.text)
    session.add(note)
    await session.commit()
    return note


@app.get("/notes/{note_id}", response_model=NoteOut)
async def find(note_id: uuid.UUID, session: Session):
    note = await session.get(Note, note_id)
    if note is None:
        raise HTTPException(404)
    return note


@app.get("/notes", response_model=PageOut)
async def page(session: Session, limit: int = 20):
    items = list(await session.scalars(select(Note).order_by(Note.id.desc()).limit(limit)))
    return {"items": items, "next": f"/notes?after={items[-1].id}"}


@app.get("/livez")
async def livez():
    return {"status": "alive"}
