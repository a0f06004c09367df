"""The parts of a run. Each asks one question and writes its answer into the figures."""

import json
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

from tests.bench.bench import Bench, Request
from tests.bench.database import PYTHON, ROWS
from tests.bench.figures import Figures
from tests.bench.relay import Relay
from tests.bench.simulation import simulation
from tests.bench.stacks import HERE, LIMIT, QUIET, SERVICE, Server

REQUESTS = 100
GROWTH = [1, 16, 64, 128, 256, 512, 1_000]
FAIR = [64, 256, 512]
PROCESSES = [1, 2, 4]
TENTH = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}
IDLE = [0, 250, 500, 1_000]
NOTES = [1_000, 10_000, 100_000, 1_000_000, 10_000_000]
SEVERAL_SECONDS = 3
"""Of a turn whose p99 counts: a second has too few requests for that."""

PLATFORM = "import platform; print(platform.python_version())"
IMAGE = "from chassis.testing import containers\nwith containers.image() as name: print(name, flush=True); input()"


def requests(bench: Bench, figures: Figures) -> None:
    """What does each kind of request cost, and what does a worker hold after all of them?"""
    with bench.running(bench.stacks) as servers:
        bench.expect_same(servers)
        for kind in bench.kinds:
            figures.by_kind[kind] = bench.compare(servers, kind)
        figures.worker_mb = {server.stack.name: max(server.worker_bytes()) / 1e6 for server in servers}


def image(bench: Bench, figures: Figures) -> None:
    """What does it cost in the image, on the Python that is there, as production runs it?"""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        print("There is no Docker engine: what requests cost in the image is not measured.")
        return
    with subprocess.Popen(
        [PYTHON, "-c", IMAGE], cwd=bench.service, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        name = process.stdout.readline().strip() if process.stdout else ""
        try:
            stacks = [replace(stack, image=name) for stack in (SERVICE, LIMIT)]
            version = ["docker", "run", "--rm", name, "python", "-c", PLATFORM]
            python = subprocess.run(version, capture_output=True, text=True, check=True).stdout.strip()
            figures.image = f"{datetime.now(UTC).date().isoformat()}, Python {python}, in the image"
            figures.image_ready_seconds = {stack.name: [] for stack in stacks}
            for _ in range(bench.few_rounds):
                for stack in stacks:
                    with bench.start(stack) as server:
                        figures.image_ready_seconds[stack.name].append(server.ready_seconds)
            with bench.running(stacks) as servers:
                for kind in bench.kinds:
                    figures.in_image[kind] = bench.compare(servers, kind)
                figures.image_mb = {server.stack.name: max(server.worker_bytes()) / 1e6 for server in servers}
        finally:
            process.communicate("\n")


def line(bench: Bench, figures: Figures) -> None:
    """What does the canonical line cost: the service with it, and without?"""
    with bench.running([SERVICE, QUIET]) as servers:
        figures.line = bench.compare(servers, "read")


def starts(bench: Bench, figures: Figures) -> None:
    """How long is it from the start to the first note read, and from SIGTERM, without requests, to the exit?"""
    figures.ready_seconds = {stack.name: [] for stack in bench.stacks}
    figures.stop_seconds = {stack.name: [] for stack in bench.stacks}
    for _ in range(bench.few_rounds):
        for stack in bench.stacks:
            with bench.start(stack) as server:
                figures.ready_seconds[stack.name].append(server.ready_seconds)
                time.sleep(1)  # a bare gunicorn may forget a SIGTERM while a worker is being made
                figures.stop_seconds[stack.name].append(server.stop())


def round_trips(bench: Bench, figures: Figures) -> None:
    """How often is PostgreSQL waited for in one request? Counted on the wire, one request after the other."""
    for stack in bench.stacks:
        with Relay(bench.database.url) as relay, bench.start(stack, database_url=relay.url) as server:
            for kind in ["read", "create", "list"]:
                for _ in range(REQUESTS):  # until each connection of each process knows its statements
                    bench.ask(server, kind)
                before = relay.round_trips
                for _ in range(REQUESTS):
                    bench.ask(server, kind)
                trips = (relay.round_trips - before) / REQUESTS
                figures.round_trips.setdefault(kind, {})[stack.name] = trips


def connections(bench: Bench, figures: Figures) -> None:
    """How do reads fare over more and more connections? Each stack is alone: PostgreSQL has no room for all."""
    figures.by_connections = {str(count): {} for count in (GROWTH[:3] if bench.is_rehearsal else GROWTH)}
    for _ in range(bench.few_rounds):
        for stack in bench.stacks:
            with bench.start(stack) as server:
                bench.turn(server, "read")
                for count, found in figures.by_connections.items():
                    found.setdefault(stack.name, []).append(bench.turn(server, "read", int(count)))


def fairness(bench: Bench, figures: Figures) -> None:
    """Is every connection of the service answered as fast as the others, and has each worker as many?"""
    counts = FAIR[:1] if bench.is_rehearsal else FAIR
    figures.by_workers = {}
    for workers in PROCESSES:
        found = figures.by_workers[str(workers)] = {str(count): [] for count in counts}
        with bench.start(SERVICE, workers) as server:
            bench.turn(server, "read")
            for _ in range(bench.few_rounds):
                for count in counts:
                    found[str(count)].append(bench.turn(server, "read", count, SEVERAL_SECONDS))


def processes(bench: Bench, figures: Figures) -> None:
    """What do more processes bring?"""
    figures.by_processes = {str(count): {} for count in (PROCESSES[:1] if bench.is_rehearsal else PROCESSES)}
    for _ in range(bench.few_rounds):
        for stack in bench.stacks:
            for count, found in figures.by_processes.items():
                with bench.start(stack, int(count)) as server:
                    bench.turn(server, "read")
                    found.setdefault(stack.name, []).append(bench.turn(server, "read"))


def idle(bench: Bench, figures: Figures) -> None:
    """What memory do connections need that are kept alive and have nothing to do?"""
    figures.idle_mb = {}
    with bench.start(SERVICE) as server, ExitStack() as held:
        bench.turn(server, "read")
        clients: list[socket.socket] = []
        for count in IDLE:
            while len(clients) < count:
                clients.append(held.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)))
                clients[-1].sendall(b"GET /livez HTTP/1.1\r\nHost: bench\r\n\r\n")
                clients[-1].recv(4_096)
            figures.idle_mb[str(count)] = sum(server.worker_bytes()) / 1e6


def bodies(bench: Bench, figures: Figures) -> None:
    """What does a larger body cost, up to the limits of the text and of the body?"""
    texts = ["x" * 100, "x" * 1_000, "x" * 10_000, "\N{GRINNING FACE}" * 10_000]
    sizes = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    sizes.append(json.dumps({"text": texts[-1]}))  # the longest form: twelve bytes for each character
    figures.by_body = {str(len(body.encode())): [] for body in sizes}
    with bench.start(SERVICE) as server:
        for _ in range(bench.few_rounds):
            for body in sizes:
                figures.by_body[str(len(body.encode()))].append(bench.turn(server, Request("create", body=body)))


def options(bench: Bench, figures: Figures) -> None:
    """What do traces and tokens cost, on a read?"""
    command = [PYTHON, str(HERE / "surroundings.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        given = json.loads(process.stdout.readline() if process.stdout else "")
        try:
            traces, tokens = given["traces"], given["tokens"]
            variants = {
                "neither": ({}, ""),
                "traces, a tenth": ({**traces, **TENTH}, ""),
                "traces, all": (traces, ""),
                "tokens": (tokens, given["authorization"]),
                "both": ({**traces, **tokens}, given["authorization"]),
            }
            figures.by_option = {name: [] for name in variants}
            with ExitStack() as running:
                servers: dict[str, Server] = {}
                for name, (variables, _) in variants.items():
                    stack = replace(SERVICE, name=name, variables=variables)
                    servers[name] = running.enter_context(bench.start(stack))
                for _ in range(bench.rounds):
                    for name, (_, authorization) in variants.items():
                        turn = bench.turn(servers[name], Request("read", authorization=authorization))
                        figures.by_option[name].append(turn)
        finally:
            process.communicate("\n")


def notes(bench: Bench, figures: Figures) -> None:
    """What do more rows cost? The last part of a run, since it leaves a large table."""
    sizes = NOTES[:2] if bench.is_rehearsal else NOTES
    figures.by_notes = {}
    for size in sizes:
        bench.database.fill(size)
        reads = tuple(f"/notes/{note_id}" for note_id in bench.database.some(ROWS))
        deepest = f"/notes?limit=20&after={bench.database.last_page()}"
        asked = {
            "read": Request("read", paths=reads),
            "create": Request("create"),
            "first page": Request("list"),
            "deepest page": Request("list", paths=(deepest,)),
        }
        found = figures.by_notes[str(size)] = {name: [] for name in asked}
        with bench.start(SERVICE) as server:
            for _ in range(bench.few_rounds + 1):
                for name, request in asked.items():
                    found[name].append(bench.turn(server, request))


PARTS = [
    requests,
    image,
    line,
    starts,
    round_trips,
    connections,
    fairness,
    processes,
    idle,
    bodies,
    options,
    simulation,
]
SECTIONS: dict[str, Callable[[Bench, Figures], None]] = {part.__name__: part for part in [*PARTS, notes]}
