"""The name server of the rehearsal: one CNAME for the database, which can be moved while the service runs.

As a program it is a DNS server that reads its answer from a file; `python -c` runs its text in a container. On AWS this
is a private hosted zone of Route 53.
"""

import socket
import struct
import sys
from pathlib import Path

ANSWER = Path("/tmp/answer")  # noqa: S108 - in a container of its own
"""Holds the canonical name and the IPv4 address to which the name leads."""

TTL_SECONDS = 1
A, CNAME, IN = 1, 5, 1
REFUSED, AUTHORITATIVE = 0x8185, 0x8580


def encoded(name: str) -> bytes:
    """Return a DNS name in its form on the wire."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def response(query: bytes, name: str) -> bytes:
    """Return the response to a query: CNAME and address for `name`, nothing for other types, a refusal otherwise.

    https://www.rfc-editor.org/rfc/rfc1035#section-4
    """
    end = query.index(b"\0", 12) + 5
    question = query[12:end]
    kind, _ = struct.unpack("!HH", question[-4:])
    if question[:-4].lower() != encoded(name).lower():
        return query[:2] + struct.pack("!HHHHH", REFUSED, 1, 0, 0, 0) + question
    target, address = ANSWER.read_text(encoding="ascii").split()
    canonical = encoded(target)
    records = [b"\xc0\x0c" + struct.pack("!HHIH", CNAME, IN, TTL_SECONDS, len(canonical)) + canonical]
    if kind == A:
        records.append(canonical + struct.pack("!HHIH", A, IN, TTL_SECONDS, 4) + socket.inet_aton(address))
    return query[:2] + struct.pack("!HHHHH", AUTHORITATIVE, 1, len(records), 0, 0) + question + b"".join(records)


def serve(name: str) -> None:
    """Answer queries for `name` on UDP port 53 for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", 53))  # noqa: S104 - the container's own network
        while True:
            query, peer = sock.recvfrom(512)
            sock.sendto(response(query, name), peer)


if __name__ == "__main__":
    serve(sys.argv[1])
