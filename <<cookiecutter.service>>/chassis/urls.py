"""Factor III: what a URL in the environment may be, and what in it is secret.

The database's URL is read by libpq's own parser, because another one would find another password in it, or none.
https://www.postgresql.org/docs/18/libpq-connect.html#LIBPQ-CONNSTRING-URIS
"""

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

SECRET_PARAMETERS = {option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.dispchar == b"*"} | {
    "scram_client_key",
    "scram_server_key",
}
"""The parameters of a database URL that libpq would not show either, and two that are as good as a password."""

CREDENTIAL = r"(?i).*(api.?key|token|secret|passw(or)?d|pwd|signature)|key|sig"
"""What a parameter that is as good as a password is called in other URLs."""

HOST_NAME = r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?"
"""A host name, or an IPv4 address. Python's resolver raises a `UnicodeError` for a label that is longer, or empty."""

NOWHERE = "/nonexistent"
"""A folder without sockets. A connection to it fails at once, but only after libpq has checked every parameter."""

_KEY = r"(?i)(https?://)([^:@/?#]+):?@"
"""What stands alone before the host of a web address is a key, and not a user's name."""

_FORM = "Must be a URL: postgresql://USER:PASSWORD@HOST/DATABASE"
_ESCAPE = "encode special characters in the user and in the password (@ is %40, / is %2F, ? is %3F, % is %25)"


def database_fault(url: str) -> str | None:
    """Return why no connection can ever be made with `url`, without a part of it; or `None`."""
    if not re.match(r"postgres(ql)?://", url):
        return f"{_FORM}."
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        return "Must not contain spaces or line breaks, such as one at its end."
    try:
        options = pq.Conninfo.parse(url.encode())
        parameters = {option.keyword.decode(): option.val.decode() for option in options if option.val}
    except (psycopg.Error, UnicodeError):
        return f"{_FORM}; {_ESCAPE}."
    return _fault_of_place(url, parameters) or _fault_of_parameters(url, parameters)


def _fault_of_place(url: str, parameters: Mapping[str, str]) -> str | None:
    """Return what is wrong with the host or the database: often they are the end of a password."""
    host = parameters.get("host") or os.environ.get("PGHOST", "")
    database = parameters.get("dbname") or os.environ.get("PGDATABASE", "")
    before, is_there, _ = url.partition("://")[2].partition("@")
    if not (host and database):
        return f"{_FORM}."
    if (is_there and "/" in before.partition("?")[0] and "user" not in parameters) or "@" in database:
        return f"{_FORM}; {_ESCAPE}."
    if not all(name.startswith("/") or _is_name(name) or _is_address(name) for name in host.split(",")):
        return f"The host is no host name; {_ESCAPE}."
    if re.search(r"[\x00-\x1f\x7f]", parameters.get("dbname", "")):
        return "The database must not contain line breaks or other control characters."
    return None


def _fault_of_parameters(url: str, parameters: Mapping[str, str]) -> str | None:
    """Return which parameter has a value with which no connection can be made."""
    files = [parameters.get(name, "") for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl")]
    # `Path.is_file` would raise an error for a folder that may not be entered, or a name that is too long.
    if not all(os.path.isfile(name) for name in files if name not in {"", "system"}):  # noqa: PTH113
        return "It names a file of certificates or keys that does not exist here."
    for name in ("keepalives", "connect_timeout", "tcp_user_timeout", "keepalives_idle", "keepalives_interval"):
        if not re.fullmatch(r"-?[0-9]{0,9}", parameters.get(name, "")):
            return f"Its parameter {name} must be a number."
    hosts = (parameters.get("host") or os.environ.get("PGHOST", "")).split(",")
    addresses = parameters.get("hostaddr") or os.environ.get("PGHOSTADDR", "")
    if addresses and not (
        addresses.count(",") + 1 == len(hosts) and all(not each or _is_address(each) for each in addresses.split(","))
    ):
        return "Its parameter hostaddr must have one address for each host."
    if parameters.get("replication", "no").lower() not in {"false", "off", "no", "0"}:
        return "Its parameter replication must not be set."
    # libpq checks the others, before it does anything else.
    nowhere = make_conninfo(url, host=",".join([NOWHERE] * len(hosts)), hostaddr="")
    attempt = pq.PGconn.connect_start(nowhere.encode())
    try:
        message = attempt.get_error_message()
        # With what stands beside the URL, and libpq's defaults.
        complete = {option.keyword.decode(): (option.val or b"").decode(errors="replace") for option in attempt.info}
    finally:
        attempt.finish()
    # The second is said of a local socket only, after everything has been checked.
    if message.startswith(("connection to server on socket", "GSSAPI encryption required")):
        return _fault_of_complete(complete, is_local=any(name.startswith("/") for name in hosts))
    # The message may quote a value, so only names are taken from it; the longest first, since some contain others.
    names = sorted((option.keyword.decode() for option in pq.Conninfo.get_defaults()), key=len, reverse=True)
    named = next((name for name in names if re.search(rf"\b{name}\b", message)), None)
    return f"libpq refuses its parameter {named}." if named else "libpq refuses its parameters."


def _fault_of_complete(parameters: Mapping[str, str], *, is_local: bool) -> str | None:
    """Return what is found out only when a connection is made: by psycopg for the port, by libpq for the rest."""
    if not all(re.fullmatch(r"\s*[0-9]*", port) for port in parameters["port"].split(",")):
        return "Its parameter port must be a number."
    mode = parameters["sslmode"]
    if parameters["channel_binding"] == "require" and mode == "disable":
        return "Its parameter channel_binding needs TLS, which its parameter sslmode disables."
    root = parameters["sslrootcert"] or os.path.expanduser("~/.postgresql/root.crt")  # noqa: PTH111 - raises nothing
    if mode.startswith("verify-") and not (root == "system" or is_local or os.path.isfile(root)):  # noqa: PTH113
        return "Its parameter sslmode needs a file of root certificates in sslrootcert, or sslrootcert=system."
    return None


def _is_name(text: str) -> bool:
    """Return whether a text can be a host name, or an IPv4 address."""
    is_address = re.fullmatch(r"([0-9]+\.){3}[0-9]+", text)
    return bool(re.fullmatch(HOST_NAME, text)) and (not is_address or _is_address(re.sub(r"\b0+\B", "", text)))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def shown(url: str) -> str:
    """Return a URL with `***` in the places of its secrets."""
    url = re.sub(_KEY, r"\1***@", url)
    url = re.sub(r"(?<=://)([^:@/]*):[^@/]*@", r"\1:***@", url, count=1)
    return re.sub(r"([?&])([^=?&]+)=[^&]*", _shown_parameter, url)


def secrets(environ: Mapping[str, str]) -> set[str]:
    """Return the secrets of an environment: passwords, keys, and what URLs hold of them, as they are written and read.

    Variables are known by their names or by what they look like, so that nothing must be declared and nothing be valid.
    """
    found = set()
    for name, value in environ.items():
        if name in {"PGPASSWORD", "PGOAUTHCLIENTSECRET"}:
            found |= {value, value.strip()}
        elif name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("HEADERS"):
            pairs = [pair.partition("=")[2].strip() for pair in value.split(",")]
            found |= {word for pair in pairs for text in (pair, unquote(pair)) for word in (text, *text.split()[1:])}
        elif "://" in value:
            found |= set(_secrets_of(value))
    return found - {""}


def _secrets_of(url: str) -> Iterator[str]:
    raw = re.findall(r"://[^:@/]*:([^@/]*)@", url)  # as libpq and browsers see it
    raw += re.findall(r"://[^:@/]*:(.*)@", url, re.DOTALL)  # what was meant, where it was not encoded
    raw += [key for _, key in re.findall(_KEY, url)]
    # Looked for after every `?`, since a user name may contain one.
    pairs = re.findall(r"(?=[?&]([^=?&]+)=([^&]*))", url)
    raw += [value for name, value in pairs if _is_secret(name)]
    for text in raw:
        yield from (text, text.strip(), unquote(text))


def _shown_parameter(match: re.Match[str]) -> str:
    before, name = match[1], match[2]
    return f"{before}{name}=***" if _is_secret(name) else match[0]


def _is_secret(name: str) -> bool:
    return unquote(name) in SECRET_PARAMETERS or bool(re.fullmatch(CREDENTIAL, unquote(name)))
