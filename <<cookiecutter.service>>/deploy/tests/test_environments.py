"""An environment has a name that fits, and a file that can be read."""

import re
from pathlib import Path

import pytest

from deploy import config, environments, files, lifecycle
from deploy.tests.cloud import ACCOUNT
from deploy.tests.conftest import changed, tables


@pytest.mark.parametrize("name", ["staging", "production"])
def test_the_files_are_whole_but_for_what_only_their_owner_knows(name: str) -> None:
    with pytest.raises(config.ConfigError, match="account '000000000000' is not the number of an AWS account"):
        environments.load(name)
    filled = files.read(name)
    filled |= {key: tables()[key] for key in ("account", "images_account", "region")}
    filled["platform"]["certificate_arn"] = tables()["platform"]["certificate_arn"]
    assert environments.parse(name, filled).service.tasks_min >= 3


@pytest.mark.parametrize("name", ["x", "a-b", "averyveryverylongname"])
def test_names_that_do_not_fit_into_aws_s_are_refused(name: str) -> None:
    with pytest.raises(config.ConfigError, match="an environment's name is 2 to 16"):
        environments.parse(name, tables())


def test_no_environment_has_the_name_of_the_images_stack() -> None:
    with pytest.raises(config.ConfigError, match="an environment cannot be called 'images'"):
        environments.parse("images", tables())


def test_the_longest_names_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "service_name", lambda: "a" * 24)
    longest = environments.parse("e" * 16, changed())
    assert max(len(longest.function_name(event)) for event in lifecycle.EVENTS) <= 64
    monkeypatch.setattr(config, "service_name", lambda: "a" * 25)
    with pytest.raises(config.ConfigError, match=r"the service's name 'a{25}' is not 2 to 24"):
        environments.parse("staging", tables())


def test_a_service_without_a_valid_name_of_a_repository_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "service_name", lambda: "a--b")
    with pytest.raises(config.ConfigError, match="'a--b' is not 2 to 24 letters, digits and single hyphens"):
        environments.parse("staging", tables())


@pytest.mark.parametrize("name", ["platform", "postgres", "none", "public", "rdsadmin", "template0", "template1"])
def test_names_that_the_platform_or_postgresql_has_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(config, "service_name", lambda: name)
    with pytest.raises(config.ConfigError, match=f"the service cannot be called '{name}'"):
        environments.parse("staging", tables())


def test_accounts_that_are_not_filled_in_get_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    filled = {"staging": {"account": ACCOUNT}, "production": {"account": files.UNFILLED}}
    monkeypatch.setattr(files, "read", filled.__getitem__)
    assert files.accounts() == [ACCOUNT]


def test_every_architecture_gets_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.platforms() == "linux/arm64"
    architectures = {
        "staging": {"service": {"architecture": "ARM64"}},
        "production": {"service": {"architecture": "X86_64"}},
    }
    monkeypatch.setattr(files, "read", architectures.__getitem__)
    assert files.platforms() == "linux/amd64,linux/arm64"


def test_an_unknown_environment_says_which_there_are() -> None:
    with pytest.raises(config.ConfigError, match="there is no environment 'moon': deploy/ has production, staging"):
        environments.load("moon")


@pytest.mark.parametrize("name", ["../pyproject", "x" * 300, "", "release/prices"])
def test_what_is_no_name_of_a_file_is_an_unknown_environment(name: str) -> None:
    with pytest.raises(config.ConfigError, match=f"^there is no environment {re.escape(repr(name))}: deploy/ has "):
        files.read(name)


WHOLE = b"""account = "1"
region = "eu-central-1"
[service]
architecture = "ARM64"
"""


@pytest.mark.parametrize(
    ("written", "replacement", "fault"),
    [
        (WHOLE, b"\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (WHOLE, b"account = ", "Invalid value"),
        (b'account = "1"', b"", "account must be a text that is not empty"),
        (b'"eu-central-1"', b'""', "region must be a text that is not empty"),
        (b'"eu-central-1"', b"1", "region must be a text that is not empty"),
        (b"[service]", b"", "[service] architecture must be ARM64 or X86_64"),
        (b'"ARM64"', b'"POWER"', "[service] architecture must be ARM64 or X86_64"),
        (b'"ARM64"', b'["ARM64"]', "[service] architecture must be ARM64 or X86_64"),
    ],
)
def test_what_every_command_reads_of_a_file_is_there_or_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bytes, replacement: bytes, fault: str
) -> None:
    monkeypatch.setattr(config, "ROOT", tmp_path)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "moon.toml").write_bytes(WHOLE)
    assert files.accounts() == ["1"]
    (tmp_path / "deploy" / "moon.toml").write_bytes(WHOLE.replace(written, replacement))
    with pytest.raises(config.ConfigError, match=re.escape(f"deploy/moon.toml: {fault}")) as refused:
        files.read("moon")
    assert "\n" not in str(refused.value)
