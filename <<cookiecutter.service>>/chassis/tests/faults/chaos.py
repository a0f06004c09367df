"""Chance combines faults, and what must always hold is checked. `make chaos`, `make chaos SECONDS=600 SEED=7`.

`FAULTS="reload, stop and start"` has only these happen.

Two services run on one PostgreSQL: one finds it by its name through a proxy, the other through PgBouncer. Clients put
load on both and remember every answer. Meanwhile faults begin and end in random order and overlap, drawn from a seed
that is printed: it repeats what is drawn, but which request a fault meets depends on the machine. As Jepsen's nemesis
does, and FoundationDB's simulation. https://jepsen.io/analyses
"""

import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg

from chassis.tests.faults.clients import SUCCESSES, Client
from chassis.tests.faults.world import CONNECTIONS, DATABASE_TIMEOUT_SECONDS, STATEMENT_TIMEOUT_SECONDS, World

TOLERANCE_SECONDS = 2
"""For a machine on which the clients, the servers and the proxies share the processors."""

WRITE_SECONDS = DATABASE_TIMEOUT_SECONDS + STATEMENT_TIMEOUT_SECONDS + 1
"""The longest that the answer to a write may take: a connection, and a statement. A read may need both twice."""

RECOVERY_SECONDS = 1
"""After the last fault, requests are answered as if nothing had been."""

ROUND_SECONDS = 12
"""How long faults begin, before all of them end and it becomes calm for a while."""

CALM_SECONDS = 2
"""How long no request may fail, once there was time to recover. Then the next round begins."""

MOST_SESSIONS = 4 * CONNECTIONS
"""Of all services at the server, which also has sessions of the past: it learns late of a close whose packets a fault
has dropped. The services' own ends are counted exactly, below."""

MOST_MORE = {"connections": 1, "files": 10, "memory": 25_000}
"""What a worker may have more at the end than at the start: a new connection that replaces an old one, attempts to
connect, and KB of Python's caches."""

LEAK_SECONDS = 15
"""How long more of them may be seen: some lifetimes of a connection."""


def run(seconds: float, seed: int, only: Sequence[str] = (), folder: Path | None = None) -> list[str]:
    """Run for `seconds`, and return what did not hold.

    Args:
        seconds: For how long faults begin.
        seed: What chance depends on.
        only: The names of the faults that may happen. If it is empty: all.
        folder: Where the code of the services is. If it is `None`: here.

    Raises:
        ValueError: There is no such fault.
    """
    chance = random.Random(seed)
    print("chaos:", _as_asked(seconds, seed, only), flush=True)
    with ExitStack() as stack:
        world = World(stack, random.Random(seed), folder)
        faults = world.faults()
        if unknown := set(only) - set(faults):
            raise ValueError(f"FAULTS has {', '.join(sorted(unknown))}; there are: {', '.join(faults)}")
        faults = {name: fault for name, fault in faults.items() if name in only or not only}
        ended = threading.Event()
        clients = [
            Client(port, random.Random(f"{seed} {port} {number}"), ended)
            for number in range(6)
            for port in world.services
        ]
        for client in clients:
            client.start()
        time.sleep(3)
        before = world.footprint()
        ends = time.monotonic() + seconds
        happened: Counter[str] = Counter()
        calms: list[tuple[float, float]] = []
        while time.monotonic() < ends or not calms:
            happened += _nemesis(world, faults, chance, min(time.monotonic() + ROUND_SECONDS, ends))
            world.look_after()
            well = time.monotonic() + RECOVERY_SECONDS + TOLERANCE_SECONDS
            calms.append((well, well + CALM_SECONDS))
            # The next round must not meet a request of the calm that is still in flight.
            time.sleep(well + CALM_SECONDS + RECOVERY_SECONDS - time.monotonic())
            if world.look_after():  # by a fault of its own, PgBouncer 1.18 may end in a calm, which is none then
                calms.pop()
        ended.set()
        for client in clients:
            client.join()
        print(f"chaos: {len(calms)} rounds, {dict(happened.most_common())}", flush=True)
        world.server.wait_until_reachable()
        return [
            *_judge_answers(world, clients, calms),
            *_judge_crowds(world),
            *_judge_rows(world, clients),
            *_judge_leaks(world, before),
        ]


def _as_asked(seconds: float, seed: int, only: Sequence[str]) -> str:
    """Return what repeats a run, as `make` takes it."""
    return f"SECONDS={seconds:g} SEED={seed}" + (f' FAULTS="{", ".join(only)}"' if only else "")


def _nemesis(
    world: World, faults: dict[str, Callable[[float], object]], chance: random.Random, ends: float
) -> Counter[str]:
    """Begin faults until `ends`, up to three at once and each once at a time; return when all are over."""
    running: dict[str, threading.Thread] = {}
    happened: Counter[str] = Counter()
    broken: list[BaseException] = []

    def inflict(name: str, seconds: float) -> None:
        try:
            faults[name](seconds)
        except psycopg.OperationalError as error:
            print(f"chaos: {name}: {error}", flush=True)  # another fault was in its way
        except BaseException as error:  # noqa: BLE001 - shown at the end
            broken.append(error)

    groups = {name: name.split()[0] for name in faults} | dict.fromkeys(
        ("packets dropped", "connections killed", "pooler reconnects"), "server"
    )
    groups |= dict.fromkeys(("pooler paused", "pooler frozen", "pooler reconnects"), "pooler")
    groups |= dict.fromkeys(("reload", "stop and start", "worker killed", "log reader asleep"), "process")
    while time.monotonic() < ends and not broken:
        running = {name: thread for name, thread in running.items() if thread.is_alive()}
        busy = {groups[name] for name in running}
        if "pooler" not in busy:
            world.look_after()
        free = [name for name in faults if groups[name] not in busy]
        if len(running) < 3 and free:
            # Stops meet requests that begin within a hair's breadth, and a proxy must be silent while all attempts to
            # connect are under way: they need more attempts than the others.
            often = [name for name in free if name in {"reload", "stop and start", "proxy frozen and replaced"}] * 4
            name, lasts = chance.choice(free + often), chance.choice([0.3, 1, 3, 7])
            print(f"chaos: {time.monotonic() - ends:8.1f} s {name}, {lasts} s", flush=True)
            happened[name] += 1
            running[name] = threading.Thread(target=inflict, args=[name, lasts], daemon=True)
            running[name].start()
        time.sleep(chance.choice([0.1, 0.5, 2]))
    for thread in running.values():
        thread.join()
    if broken:
        raise broken[0]
    return happened


def _judge_answers(world: World, clients: list[Client], calms: list[tuple[float, float]]) -> Iterator[str]:
    counted: Counter[str] = Counter()
    start = calms[0][0]
    for client in clients:
        for began, seconds, method, status, fault in client.answers:
            counted[f"{status} {fault}".strip()] += 1
            may_close = any(a <= began + seconds and began <= b for a, b in world.disturbed[client.port])
            where = f"{method} at {began - start:.1f} s on {client.port}: {status} {fault}, {seconds:.1f} s"
            is_calm = any(well < began < until for well, until in calms)
            if fault and not (status == 0 and may_close):
                yield f"an answer that is not documented: {where}"
            if status not in {*SUCCESSES, 404, 503, 0}:
                yield f"a status that is not documented: {where}"
            if seconds > _most_seconds(method):
                yield f"an answer that took too long: {where}"
            if is_calm and (fault or status not in {*SUCCESSES, 404}):
                yield f"a failure long after the last fault: {where}"
        if not any(began > calms[-1][0] for began, *_ in client.answers):
            yield f"a client on {client.port} gets no answers any more"
    times = [(method == "GET", seconds) for client in clients for _, seconds, method, *_ in client.answers]
    read, write = (max(seconds for is_read, seconds in times if is_read is wanted) for wanted in (True, False))
    print(f"chaos: answers {dict(counted.most_common())}; the slowest read {read:.1f} s, write {write:.1f} s")


def _most_seconds(method: str) -> float:
    return WRITE_SECONDS * (2 if method == "GET" else 1) + TOLERANCE_SECONDS


def _judge_crowds(world: World) -> Iterator[str]:
    counted: Counter[str] = Counter()
    for port, load in world.crowds:
        for answer in load.answers:
            counted[f"{answer.status} {answer.fault.partition(':')[0]}".strip()] += 1
            where = f"{answer.method} of a crowd on {port}: {answer.status} {answer.fault}, {answer.seconds:.1f} s"
            if answer.status not in {*SUCCESSES, 503, 0} or (answer.status and answer.fault):
                yield f"an answer that is not documented: {where}"
            if answer.seconds > _most_seconds(answer.method):
                yield f"an answer that took too long: {where}"
    print(f"chaos: answers to crowds {dict(counted.most_common())}")


def _judge_rows(world: World, clients: list[Client]) -> Iterator[str]:
    rows = world.server.ask("SELECT id::text, text FROM probes")
    texts, stored = Counter(text for _, text in rows), dict(rows)
    writes = 0
    for client in clients:
        for text, is_acknowledged in client.posted.items():
            writes += is_acknowledged
            if texts[text] > 1 or texts[text] < is_acknowledged:
                yield f"POST of {text}, {'' if is_acknowledged else 'not '}acknowledged, is there {texts[text]} times"
        for key, possible in client.states.items():
            writes += len(possible) == 1
            if stored.get(key) not in possible:
                yield f"{key} is {stored.get(key)!r}, not one of {possible}"
    for _, load in world.crowds:
        writes += len(load.acknowledged)
        for key, text in load.acknowledged.items():
            if stored.get(key) != text:
                yield f"{key} is {stored.get(key)!r}, not {text!r}"
    print(f"chaos: {writes} acknowledged states compared with {len(rows)} rows")


def _judge_leaks(world: World, before: dict[str, int]) -> Iterator[str]:
    lines = world.lines + [line for service in world.services.values() for line in service.lines]
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            yield f"a line that is not JSON: {line!r}"
    for service in world.services.values():
        if service.stderr:
            yield f"something on stderr: {service.stderr!r}"
    sessions = world.server.sessions()
    if sessions > MOST_SESSIONS:
        yield f"{sessions} connections to the server, where {2 * CONNECTIONS} are used"
    # A connection that is replaced at this moment is no leak: what is left behind is there later, too.
    deadline = time.monotonic() + LEAK_SECONDS
    if at_first := _leaks(before, world.footprint()):
        print(f"chaos: more than before, at first: {at_first}")
    while _leaks(before, after := world.footprint()) and time.monotonic() < deadline:
        time.sleep(0.5)
    print(f"chaos: {sessions} connections; {len(lines)} lines of JSON; before {before}; after {after}")
    yield from _leaks(before, after)


def _leaks(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [
        f"{name}: {amount}, before {before[name]}"
        for name, amount in after.items()
        if amount > before[name] + MOST_MORE[name.split()[0]]
    ]


def main() -> int:
    """Run as the environment says, and return the exit status."""
    seconds = float(os.environ.get("SECONDS") or 120)
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    only = [name.strip() for name in os.environ.get("FAULTS", "").split(",") if name.strip()]
    try:
        violations = run(seconds, seed, only)
    except ValueError as error:
        print(f"chaos: {error}")
        return 2
    except psycopg.Error as error:
        violations = [f"the world broke: {error}"]
    for violation in violations[:30]:
        print(f"chaos: VIOLATED: {violation}")
    print(f"chaos: {len(violations)} violations; to repeat: make chaos {_as_asked(seconds, seed, only)}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
