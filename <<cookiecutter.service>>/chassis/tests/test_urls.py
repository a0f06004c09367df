"""Factor III: a URL that can never work is refused early, and no message shows its secrets."""

import os
from typing import Any

import pytest

from chassis import config, urls
from chassis.tests.variables import TOKENS, URL, faults

NO_ROOT = "Its parameter sslmode needs a file of root certificates in sslrootcert, or sslrootcert=system."

pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2-hunter2@host/db\n",
        " postgresql://user:hunter2-hunter2@host/db",
        "postgresql://user:hunter2 hunter2@host/db",
        "postgresql://user:hunter2/hunter2@host/db",
        "postgresql://user:12/hunter2@host/db",
        "postgresql://user:hunter2@hunter2@host/db",
        "postgresql://user:[hunter2@host/db?sslmode=hunter2",
        "postgresql://user:hunter2@[host/db",
        "postgresql://user:hunter2@ho\uff1ast/db",
        "postgresql://user:hunter2%zz@host/db",
        "postgresql://user:hunter2@host:hunter2/db",
        "postgresql://user:hunter2@host:70000/db",
        "postgresql://user:hunter2@host/db?sslmode=bogus",
        "postgresql://user:hunter2@host/db?hunter2=1",
        "postgresql://user:hunter2@host/db?hunter2",
        "postgresql://user:hunter2@host/db?target_session_attrs=hunter2",
        "postgresql://user:hunter2@host/db?keepalives=hunter2",
        "postgresql://user:hunter2@host/db?channel_binding=hunter2",
        "postgresql://user:hunter2@host/db?sslmode=verify-ca&sslrootcert=/nonexistent/hunter2",
        "postgresql://user:hunter2@h..x/db",
        "postgresql://user:hunter2@999.999.999.999/db",
        "postgresql://user:hunter2@10.0.0.256/db",
        "postgresql://user:hunter2@.h/db",
        "postgresql://user:hunter2@one,h..x/db",
        f"postgresql://user:hunter2@{'h' * 64}/db",
        f"postgresql://user:hunter2@host/db?sslkey=/{'k' * 300}",
        "postgresql://user:hunter2@host/db?hostaddr=bogus",
        "postgresql://user:hunter2@host/db?hostaddr=1.2.3.4,5.6.7.8",
        "postgresql://user:hunter2@one,two/db?hostaddr=1.2.3.4",
        "postgresql://user:hunter2@host/db?replication=database",
        "postgresql://user:hunter2@host/db?replication=true",
        "postgresql://user:hunter2@host/db?replication=bogus",
        "postgresql://user:hunter2@host/db?gssencmode=bogus",
        "postgresql://user:hunter2@host/db?scram_client_key=hunter2",
        "postgresql://user:hunter2@/db",
        "postgresql://user:hunter2@host",
        "mysql://user:hunter2@host/db",
    ],
)
def test_a_database_url_that_can_never_connect_is_refused_without_a_word_of_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    refused = faults(monkeypatch, DATABASE_URL=url)
    assert list(refused) == ["DATABASE_URL"]
    assert "hunter2" not in str(refused)
    assert "bogus" not in str(refused)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:a%2Fb%3Fc%40d%23e%25f@host/db",
        "postgresql://user:pass#wo?rd@host/db",
        "postgresql://host/db?user=me&password=hunter2&sslpassword=hunter3",
        "postgresql://user@one,two:5433/db?target_session_attrs=any",
        "postgresql://user@[::1]:5432/db",
        "postgresql://postgres@/postgres?host=/var/run",
        "postgresql://user@[fe80::1%25eth0]/db",
        f"postgresql://user@{'h' * 63}.example.com./db",
        "postgresql://user@one,two/db?hostaddr=1.2.3.4,fd00::1",
        "postgresql://user@one,two/db?hostaddr=,1.2.3.4",
        "postgresql://user@010.0.0.1,10.1,0.0.0.0:5433/db",
        "postgresql://user@1.2.3.400.example.com/db",
        "postgresql://user@host/db?replication=off",
        "postgresql://user@host/db?gssencmode=require",
        "postgres://user@host.example.com/db?sslmode=require&channel_binding=require",
    ],
)
def test_a_database_url_may_be_whatever_libpq_takes(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert config.load(config.Config).database_url == url


@pytest.mark.parametrize(
    ("url", "variables"),
    [
        ("postgresql:///db", {"PGHOST": "one,two", "PGPORT": "1,2"}),
        ("postgresql://host/db", {"PGHOSTADDR": "10.0.0.7"}),
        ("postgresql://host/db", {"PGGSSENCMODE": "require"}),
        ("postgresql://host/db", {"PGPORT": " 5432"}),
        ("postgresql://host/db", {"PGSSLROOTCERT": "/nonexistent"}),  # nobody reads it
        ("postgresql://host/db", {"PGSSLMODE": "verify-ca", "PGSSLROOTCERT": __file__}),
        ("postgresql://host/db?sslmode=verify-full", {"PGSSLROOTCERT": "system"}),
        ("postgresql:///db", {"PGHOST": "/var/run", "PGSSLMODE": "verify-ca", "HOME": "/nonexistent"}),
        ("postgresql://host/db?channel_binding=require", {"PGSSLMODE": "allow"}),
    ],
)
def test_a_part_of_the_url_may_stand_beside_it(
    monkeypatch: pytest.MonkeyPatch, url: str, variables: dict[str, str]
) -> None:
    for name, value in {"DATABASE_URL": url, **variables}.items():
        monkeypatch.setenv(name, value)
    assert config.load(config.Config).database_url == url


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"PGHOSTADDR": "bogus"}, "Its parameter hostaddr must have one address for each host."),
        ({"PGPORT": "1,2"}, "libpq refuses its parameter port."),
        ({"PGPORT": "5432\n"}, "Its parameter port must be a number."),
        ({"DATABASE_URL": f"{URL}?port=5432%0A"}, "Its parameter port must be a number."),
        ({"DATABASE_URL": f"{URL}%0A"}, "The database must not contain line breaks or other control characters."),
        ({"DATABASE_URL": f"{URL}?sslmode=verify-full", "HOME": "/nonexistent"}, NO_ROOT),
        ({"PGSSLMODE": "verify-ca", "PGSSLROOTCERT": "/nonexistent"}, NO_ROOT),
        (
            {"DATABASE_URL": f"{URL}?channel_binding=require&sslmode=disable"},
            "Its parameter channel_binding needs TLS, which its parameter sslmode disables.",
        ),
        ({"PGGSSENCMODE": "bogus"}, "libpq refuses its parameter gssencmode."),
        ({"DATABASE_URL": f"{URL}?scram_client_key=x"}, "libpq refuses its parameters."),
        ({"DATABASE_URL": f"{URL}?sslmode=user"}, "libpq refuses its parameter sslmode."),
        ({"DATABASE_URL": f"{URL}?replication=on"}, "Its parameter replication must not be set."),
    ],
)
def test_the_parameter_at_fault_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], fault: str
) -> None:
    assert faults(monkeypatch, **variables) == {"DATABASE_URL": fault}


def test_a_file_in_a_folder_that_is_closed_to_us_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_path: Any, **_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "stat", closed)
    refused = faults(monkeypatch, DATABASE_URL=f"{URL}?sslrootcert=/closed/root.pem")
    assert "does not exist here" in refused["DATABASE_URL"]


def test_credentials_may_stand_beside_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://host/db")
    monkeypatch.setenv("PGUSER", "me")
    monkeypatch.setenv("PGPASSWORD", "!#$%&'()*+,-./:;?@[]^_`{|}~\"\\ ")
    assert config.load(config.Config).database_url == "postgresql://host/db"
    monkeypatch.setenv("PGPASSWORD", "hunter2-hunter2\n")
    monkeypatch.setenv("PGDATABASE", "orders\n")
    with pytest.raises(config.ConfigError) as refused:
        config.load(config.Config)
    assert list(refused.value.faults) == ["PGPASSWORD", "PGDATABASE"]
    assert "hunter2" not in str(refused.value)


def test_the_secrets_of_an_environment_are_found_wherever_they_stand() -> None:
    environ = {
        "DATABASE_URL": "postgresql://me:one%2Fone@host/db?password=two%40two&sslpassword=three",
        "OTHER_URL": "https://key:four@example.com/a?b=c@d",
        "PGPASSWORD": "five",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=six%20six,authorization=Basic seven",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x=eight",
        "UNESCAPED": "postgresql://me:ni/n?e@host/db",
        "AFTER_A_QUESTION_MARK": "postgresql://m?e@host/db?password=eleven",
        "KEY_ALONE": "https://twelve@example.com/1",
        "KEY_WITHOUT_A_PASSWORD": "HTTPS://thirteen:@example.com",
        "PARAMETERS": "https://example.com/?api_key=fourteen&page=nothing&access%5Ftoken=fifteen&X-Signature=sixteen",
        "PGOAUTHCLIENTSECRET": "seventeen",
        "USER_ALONE": "postgresql://nobody@host/db?sslkey=nothing",
        "NO_USER": "https://nobody/@nothing?to=nobody@nothing",
        "PLAIN": "nothing",
    }
    found = urls.secrets(environ)
    wanted = {
        "one%2Fone",
        "one/one",
        "two@two",
        "three",
        "four",
        "five",
        "six six",
        "seven",
        "eight",
        "ni/n?e",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
    }
    assert wanted <= found
    assert not {"nothing", "nobody"} & found


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://key@example.com/1?v=1", "https://***@example.com/1?v=1"),
        ("https://key:@example.com/1", "https://***@example.com/1"),
        ("https://user:key@example.com/1", "https://user:***@example.com/1"),
        ("https://example.com/?a=1&token=key&b=2", "https://example.com/?a=1&token=***&b=2"),
        ("postgresql://user@host/db?sslkey=/file", "postgresql://user@host/db?sslkey=/file"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert urls.shown(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example.com/keys?v=1",
        "https://issuer.example.com?v=1",
        "https://issuer.example.com.:8443",
        "https://[fd00::1]:8443/keys@1",
        "https://10.0.0.7/keys",
        "http://localhost:8080/keys",
        "http://127.0.0.1",
    ],
)
def test_keys_come_from_a_url_that_nobody_can_change_on_the_way(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name, value in {**TOKENS, "JWKS_URL": url}.items():
        monkeypatch.setenv(name, value)
    assert config.load(config.Config).jwks_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example.com/keys",
        "http://localhost.example.com/keys",
        "http://localhost@example.com/keys",
        "https://user:hunter2@issuer.example.com/keys",
        "https://",
        "file:///etc/passwd",
        "https://issuer.example.com/a key",
        "https://issuer:abc/keys",
        "https://issuer:65536/keys",
        "https://[::1",
        "https://[:::]/keys",
        "https://?x",
        "https://issuer..example.com/keys",
        "https://issuer.example.com/k\u00fc",
        "http://localhost:abc/keys",
    ],
)
def test_any_other_url_of_keys_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    refused = faults(monkeypatch, **{**TOKENS, "JWKS_URL": url})
    assert list(refused) == ["JWKS_URL"]
    assert "hunter2" not in str(refused)
