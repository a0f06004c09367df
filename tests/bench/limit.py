"""The lower limit of the cost: the smallest application that does the same work, with the best settings known.

It has no logs, no validation, no ids, no errors and no graceful stop.

Both the application and the settings of gunicorn: `gunicorn --config python:limit limit:app`.
"""

from gevent import monkey

monkey.patch_all()

import gc
import os

from flask import Flask, request
from psycopg_pool import ConnectionPool

app = Flask(__name__)
pool = ConnectionPool(os.environ["DATABASE_URL"], min_size=5, max_size=5, open=False, kwargs={"autocommit": True})

worker_class, preload_app, keepalive, control_socket_disable = "gevent", True, 75, True


def post_worker_init(worker):
    pool.open()


def when_ready(server):
    gc.freeze()


def note(row):
    return {"id": str(row[0]), "text": row[1], "created_at": row[2].isoformat(), "updated_at": row[3].isoformat()}


@app.post("/notes")
def create():
    statement = "INSERT INTO notes (text) VALUES (%s) RETURNING id, text, created_at, updated_at"
    with pool.connection() as conn:
        return note(conn.execute(statement, [request.json["text"]]).fetchone()), 201


@app.get("/notes/<uuid:note_id>")
def find(note_id):
    with pool.connection() as conn:
        statement = "SELECT id, text, created_at, updated_at FROM notes WHERE id = %s"
        return note(conn.execute(statement, [note_id]).fetchone())


@app.get("/notes")
def page():
    with pool.connection() as conn:
        statement = "SELECT id, text, created_at, updated_at FROM notes ORDER BY id DESC LIMIT %s"
        items = [note(row) for row in conn.execute(statement, [request.args.get("limit", type=int)])]
    return {"items": items, "next": f"/notes?after={items[-1]['id']}"}


@app.get("/livez")
def livez():
    return {"status": "alive"}
