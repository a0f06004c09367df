"""Copies of the service in three zones that fail: `make rehearse COPIES=6 ZONES=3`, by its figures."""

import socket
from collections import Counter
from pathlib import Path

import pytest

from chassis.testing import containers
from chassis.tests.faults.conftest import place
from chassis.tests.faults.test_rehearse import rehearse
from deploy.rehearse import fleet, names, page, scheduler, settings
from deploy.rehearse.fleet import State
from deploy.rehearse.rehearsal import Rehearsal


def figures(lines: list[str]) -> dict[str, dict[str, str]]:
    """Return the rows of the table at the end, by what happened; each is a dictionary by the heads of the columns."""
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


@containers.needed
def test_six_copies_survive_the_loss_of_a_zone(tmp_path: Path) -> None:
    with rehearse(tmp_path / "picture.svg", "COPIES=6", "ZONES=3", "EVENTS=cut") as run:
        assert run.wait() == 0
        found = figures(run.lines)
        assert list(found) == ["A zone is cut off", "The zone comes back"]
        cut, back = found.values()
        print(cut, back)
        assert cut["writes lost"] == back["writes lost"] == "0"
        assert back["failed"] == "0"
        # Two of six copies are in the zone: requests to them fail until the load balancer has noticed, and no longer.
        assert 0 < int(cut["failed"]) < int(cut["requests"].replace(",", "")) / 2
        assert "service" not in cut["why they failed"]
        for row in (cut, back):
            peak, budget = map(int, row["database connections: peak of budget"].split(" of "))
            # All copies have their connections, and a rehearsal never has more than a release would need.
            assert 6 * settings.CONNECTIONS_OF_A_TASK <= peak <= budget == settings.budget(9)
        assert run.left() == ""
    picture = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    for text in ("A zone is cut off", "The zone comes back", "zone c", "healthy tasks", f"budget: {budget}"):
        assert text in picture


@containers.needed
def test_six_copies_survive_the_loss_of_the_primary(tmp_path: Path) -> None:
    with rehearse(tmp_path / "picture.svg", "COPIES=6", "ZONES=3", "EVENTS=cut-primary move") as run:
        assert run.wait() == 0
        found = figures(run.lines)
        assert list(found) == [
            "The zone of the primary is cut off",
            "The zone comes back",
            "The name of the database moves",
        ]
        print(*found.values(), sep="\n")
        assert {row["writes lost"] for row in found.values()} == {"0"}
        assert found["The zone comes back"]["failed"] == "0"
        assert run.left() == ""


@containers.needed
def test_what_one_task_suffers_and_what_is_planned_fails_as_few_requests_as_promised(tmp_path: Path) -> None:
    with rehearse(tmp_path / "picture.svg", "COPIES=3", "ZONES=3", "EVENTS=kill hang double release") as run:
        assert run.wait() == 0, run.lines  # it is not if more requests fail than the table promises
        found = figures(run.lines)
        print(*found.values(), sep="\n")
        failed = {title: int(row["failed"]) for title, row in found.items()}
        assert list(failed) == [
            "A task is killed",
            "A task hangs",
            "The load doubles",
            "The load is as before",
            "Green is released",
        ]
        assert {row["writes lost"] for row in found.values()} == {"0"}
        assert {failed[title] for title in list(failed)[2:]} == {0}
        assert failed["A task hangs"] > 0
        assert run.left() == ""


@containers.needed
def test_an_interrupt_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    with rehearse(tmp_path / "picture.svg", "COPIES=3", "ZONES=3", "EVENTS=cut-primary") as run:
        run.wait_for("network")  # a zone is cut off just now
        run.interrupt()
        assert run.wait() != 0
        assert run.left() == ""
        assert "Traceback" not in "\n".join(run.lines)


FEW = "ZONES is 3 to 6, COPIES no fewer, EVENTS some of"
UNUSED = "would have no effect: ZONES and EVENTS need COPIES"


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        (["COPIES=6", "ZONES=2"], FEW),
        (["COPIES=2"], FEW),
        (["COPIES=6", "EVENTS=flood"], FEW),
        (["EVENTS=cut"], f"EVENTS {UNUSED}"),
        (["COPIES=6", "GREEN=broken", "SHIFT=all"], f"GREEN and SHIFT {UNUSED}"),
        (["PAGE_PORT=65536"], "PAGE_PORT is a whole number from 1 to 65535, and not '65536'"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused_in_one_line(tmp_path: Path, variables: list[str], reason: str) -> None:
    with rehearse(tmp_path / "picture.svg", *variables) as run:
        assert run.wait() != 0
        assert [line for line in run.lines if line.startswith(reason)], run.lines
        assert "Traceback" not in "\n".join(run.lines)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with rehearse(tmp_path / "picture.svg", f"PAGE_PORT={port}") as run:
            assert run.wait() != 0
            assert [line for line in run.lines if line.startswith(f"the page cannot be served at port {port}, ")]
            assert "Traceback" not in "\n".join(run.lines)


def test_a_port_is_a_number_and_a_machine_needs_docker(tmp_path: Path) -> None:
    with rehearse(tmp_path / "picture.svg", "PORT=x") as run:
        assert run.wait() != 0
        assert "PORT is a whole number from 1 to 65535, and not 'x'" in run.lines
    # The environment of rehearsals is there by now, which could not be made with such a PATH.
    with rehearse(tmp_path / "picture.svg", "PATH=/nowhere") as run:
        assert run.wait() != 0
        assert [line for line in run.lines if line.startswith("a rehearsal needs Docker, whose command")], run.lines
        assert "Traceback" not in "\n".join(run.lines)


@pytest.mark.parametrize("count", range(12))
def test_tasks_are_spread_evenly(show: Rehearsal, count: int) -> None:
    quotas = fleet.quotas(show.fleet, "blue", count)
    assert sum(quotas.values()) == count
    assert max(quotas.values()) - min(quotas.values()) <= 1


def test_no_task_moves_without_need(show: Rehearsal) -> None:
    place(show, "c", "c", "c", "b", "b", "a", "a")
    assert fleet.quotas(show.fleet, "blue", 7) == Counter("cccbbaa")


def test_a_zone_that_is_gone_gets_nothing(show: Rehearsal) -> None:
    place(show, "a", "a", "b", "b")
    place(show, "c", "c", state=State.CUT_OFF)
    show.fleet.avoided.add("c")
    assert fleet.quotas(show.fleet, "blue", 6) == {"a": 3, "b": 3}


def test_all_is_well_only_with_every_task_healthy_and_in_its_zone(show: Rehearsal) -> None:
    show.fleet.wanted["blue"] = 3
    place(show, "a", "b")
    assert not show.fleet.is_well()
    place(show, "c", state=State.STARTING)
    assert not show.fleet.is_well()
    for task in show.fleet.having("blue", State.STARTING):
        task.state = State.HEALTHY
    assert show.fleet.is_well()
    place(show, "c")
    assert not show.fleet.is_well()


@pytest.mark.parametrize(("cut", "shown"), [(set(), "unhealthy"), ({"a"}, "cut off")])
def test_a_task_that_fails_its_health_checks_does_not_look_as_one_that_stops_in_order(
    show: Rehearsal, cut: set[str], shown: str
) -> None:
    place(show, "a")
    show.stage.cut |= cut
    for task in show.fleet.having("blue", State.HEALTHY):
        scheduler.lose(show.fleet, lambda *_: None, task)
    zone = page.state(show)["zones"][0]
    assert [task["state"] for task in zone["tasks"]] == [shown]
    assert f">{shown}<" in page.FILE.read_text(encoding="utf-8")  # it says what that means


def test_the_name_leads_to_the_primary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ANSWER", tmp_path / "answer")
    names.ANSWER.write_text("first.internal 192.0.2.7\n", encoding="ascii")

    def ask(name: str, kind: int) -> bytes:
        head = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
        return names.response(head + names.encoded(name) + bytes([0, kind, 0, 1]), "postgres.example.com")

    found = ask("Postgres.example.com", names.A)  # names have no case
    assert found[:4] == b"\x12\x34\x85\x80"
    assert found[6:8] == b"\x00\x02"
    assert names.encoded("first.internal") in found
    assert found.endswith(b"\xc0\x00\x02\x07")
    assert ask("postgres.example.com", 28)[6:8] == b"\x00\x01"  # no IPv6 address, but the name exists
    assert ask("else.example.com", names.A)[2:4] == b"\x81\x85"
