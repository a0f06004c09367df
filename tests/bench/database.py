"""The PostgreSQL of the bench, with the service's tables."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg

from tests.bench import clocks
from tests.bench.stacks import ENVIRONMENTS

ROWS = 1_000
PYTHON = str(ENVIRONMENTS / "service/bin/python")
SERVER = "from chassis.dev import embedded\nwith embedded.temporary() as url: print(url, flush=True); input()"


class Database:
    """A server of its own, embedded, that does not wait for the disk. `url` is where it is."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._conn = psycopg.connect(url, autocommit=True)
        [(folder,)] = self._conn.execute("SHOW data_directory").fetchall()
        self._root = psutil.Process(int((Path(folder) / "postmaster.pid").read_text(encoding="utf-8").split()[0]))

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its processes since they began."""
        return clocks.cpu_seconds(self._root)

    def fill(self, rows: int) -> None:
        """Insert notes until there are so many."""
        [(present,)] = self._conn.execute("SELECT count(*) FROM notes").fetchall()
        statement = "INSERT INTO notes (text) SELECT 'Note ' || n FROM generate_series(1, %s) AS n"
        self._conn.execute(statement, [max(0, rows - present)])
        self._conn.execute("VACUUM (ANALYZE) notes")

    def some(self, count: int) -> list[uuid.UUID]:
        """Return the IDs of notes from everywhere in the table."""
        # The share is more than is needed: a sample is smaller or larger than asked for, by chance.
        statement = """
            SELECT id FROM notes TABLESAMPLE BERNOULLI (least(100, 100.0 * (2 * %s + 1000) / (
                SELECT greatest(reltuples, 1) FROM pg_class WHERE oid = 'notes'::regclass
            ))) LIMIT %s
        """
        return [note_id for (note_id,) in self._conn.execute(statement, [count, count])]

    def last_page(self) -> uuid.UUID:
        """Return the ID of the note that the deepest page of twenty follows."""
        [(note_id,)] = self._conn.execute("SELECT id FROM notes ORDER BY id OFFSET 20 LIMIT 1").fetchall()
        return uuid.UUID(str(note_id))


@contextmanager
def database(service: Path) -> Iterator[Database]:
    """Start PostgreSQL and apply the service's migrations."""
    with subprocess.Popen(
        [PYTHON, "-c", SERVER], cwd=service, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        url = process.stdout.readline().strip() if process.stdout else ""
        try:
            migrate = [PYTHON, "-m", "service.admin", "migrate"]
            subprocess.run(migrate, cwd=service, env={"DATABASE_URL": url}, check=True, stdout=subprocess.DEVNULL)
            yield Database(url)
        finally:
            process.communicate("\n")
