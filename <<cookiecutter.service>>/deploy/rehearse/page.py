"""The page to watch a rehearsal: one static file, and a stream of server-sent events with all there is to show.

Each event is the whole state, so that a browser that connects late, or again, shows the same as one that was there.
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from deploy.rehearse import record as records
from deploy.rehearse import settings
from deploy.rehearse.rehearsal import Rehearsal

FILE = Path(__file__).parent / "page.html"

PERIOD_SECONDS = 1
"""How often the state is sent, and the width of a bar of traffic."""

CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


def state(show: Rehearsal) -> dict[str, Any]:
    """Return what the page shows."""
    stage, fleet, record = show.stage, show.fleet, show.record
    with fleet.lock:
        tasks = [(task.name, task.release, task.zone, task.state.value) for task in fleet.tasks.values()]
    servers = {"primary": stage.started_primary, "standby": stage.standby}
    return {
        "service": settings.SERVICE,
        "second": round(record.second()),
        "title": record.title,
        "look": record.look,
        "verdict": record.verdict,
        "zones": [
            {
                "name": zone,
                "cut": zone in stage.cut,
                "database": [role for role, server in servers.items() if server and server.zone == zone],
                "tasks": [
                    {"name": name, "release": release, "state": value}
                    for name, release, where, value in sorted(tasks)
                    if where == zone
                ],
            }
            for zone in stage.zones
        ],
        "traffic": records.traffic(record.load.answers, record.began, PERIOD_SECONDS),
        "marks": [[round(second), name] for second, name in list(record.marks)],
        "entries": [dataclasses.asdict(entry) for entry in list(record.entries)],
        "connections": {
            "now": stage.watch.now,
            "budget": settings.budget(stage.most_tasks),
        },
        "rows": [dataclasses.asdict(row) for row in list(record.rows)],
    }


@contextmanager
def serving(show: Rehearsal, port: int) -> Iterator[str]:
    """Serve the page on `port` of this machine, and return its URL. At the end every browser gets the last state.

    Raises:
        OSError: The port is in use, or this user may not listen at it.
    """
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/":
                self._begin("text/html; charset=utf-8")
                self.wfile.write(FILE.read_bytes())
            elif self.path == "/events":
                self._begin("text/event-stream")
                self._stream()
            else:
                self.send_error(404)

        def _begin(self, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Security-Policy", CONTENT_POLICY)
            self.end_headers()

        def _stream(self) -> None:
            try:
                while not over.wait(PERIOD_SECONDS):
                    self._send()
                self._send()
                self.wfile.write(b"event: end\ndata:\n\n")
            except OSError:
                return  # the browser left

        def _send(self) -> None:
            self.wfile.write(f"data: {json.dumps(state(show))}\n\n".encode())
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
            """Write nothing: the terminal is for the rehearsal."""

    class Server(ThreadingHTTPServer):
        # So that the end of the server waits until the last state is sent.
        daemon_threads = False

    with Server(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()
            thread.join()
