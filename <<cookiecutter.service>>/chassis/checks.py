"""The checks of variables whose values are texts. None of them shows the value that it refuses."""

import ipaddress
import re
from urllib.parse import urlsplit

from environs import ValidationError

from chassis import urls


def database_url(value: str) -> None:
    """Refuse a URL with which no connection can ever be made."""
    if fault := urls.database_fault(value):
        raise ValidationError(fault)


def networks(value: str) -> None:
    """Refuse what is not a list of addresses and networks."""
    try:
        for each in value.split(",") if value else []:
            ipaddress.ip_network(each)
    except ValueError:
        raise ValidationError("Must be empty, or addresses and networks such as 10.0.0.0/16,fd00::/8.") from None


def jwks_url(value: str) -> None:
    """Refuse a URL over which the keys of tokens could be replaced, or can never be fetched."""
    # Without TLS, an attacker on the network could replace the keys and sign tokens.
    place = rf"https://({urls.HOST_NAME}|\[[0-9A-Fa-f:.]+\])|http://(localhost|127\.0\.0\.1)"
    if value and not (re.fullmatch(rf"({place})(:[0-9]*)?([/?#][!-~]*)?", value) and _is_complete(value)):
        raise ValidationError("Must be empty, or an https:// URL; http:// at localhost only.")


def _is_complete(url: str) -> bool:
    """Return whether the port of a URL, and an address in brackets, can be one."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def word(value: str) -> None:
    """Refuse spaces."""
    if not re.fullmatch(r"\S*", value):
        raise ValidationError("Must not contain spaces.")


def url_prefix(value: str) -> None:
    """Refuse what is not a path."""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", value):
        raise ValidationError("Must be empty, or a path that begins with / and does not end with it.")


def release(value: str) -> None:
    """Refuse what cannot be the name of a release."""
    if not re.fullmatch(r"[A-Za-z0-9._+-]{1,128}", value):
        raise ValidationError("Must be 1 to 128 letters, digits, dots, hyphens, pluses or underscores.")


def endpoint(value: str) -> None:
    """Refuse what is not a URL over HTTP."""
    if not re.fullmatch(r"(https?://[^\s/]\S*)?", value):
        raise ValidationError("Must be empty, or a URL: http://HOST:4318")
