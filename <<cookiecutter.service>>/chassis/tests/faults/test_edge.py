"""Clients behind a real load balancer, honest and not: the log has their addresses, whatever they say."""

import datetime as dt
import ipaddress
import itertools
import ssl
import uuid
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chassis.tests.faults.haproxy import haproxy, needed
from chassis.tests.probe.process import AsDeployed

pytestmark = needed

CLIENT, BALANCER = "127.0.0.7", "127.0.0.1"  # loopback is a network, and its addresses need not be set up

FORGED = [
    ("X-Forwarded-For", "203.0.113.66"),
    ("X-Forwarded-For", f"203.0.113.66, {BALANCER}"),
    ("X_Forwarded_For", "203.0.113.66"),
    ("X-Forwarded-Host", "evil.example.com"),
    ("X-Forwarded-Port", "666"),
    ("X-Forwarded-Ssl", "on"),
    ("Forwarded", "for=203.0.113.66;proto=https;host=evil.example.com"),
    ("SCRIPT_NAME", "/probes"),
]


def make_certificate(folder: Path) -> Path:
    """Return a file with a certificate for the balancer's address, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "balancer")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(BALANCER))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def test_behind_a_balancer_nobody_is_believed_but_the_balancer(database_url: str, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with (
        AsDeployed(DATABASE_URL=database_url, FORWARDED_ALLOW_IPS=BALANCER) as server,
        haproxy(server.port, certificate=certificate) as balancer,
        httpx.Client(
            transport=httpx.HTTPTransport(
                verify=ssl.create_default_context(cafile=certificate), local_address=CLIENT, trust_env=False
            )
        ) as client,
    ):
        balancer.wait_for(server.port, "UP")
        ways = [("http", balancer.port), ("https", balancer.tls_port), ("http", server.port)]
        lies = [[], [("X-Forwarded-Proto", "http"), *FORGED], [("X-Forwarded-Proto", "https"), *FORGED]]
        for (scheme, port), headers in itertools.product(ways, lies):
            request_id = uuid.uuid4().hex
            answer = client.get(
                f"{scheme}://{BALANCER}:{port}/probes//1",
                headers=[("Host", "service.example.com"), ("X-Request-ID", request_id), *headers],
            )
            assert answer.headers["location"] == f"{scheme}://service.example.com/probes/1"
            assert ("strict-transport-security" in answer.headers) == (scheme == "https")
            assert server.access(request_id)["client.address"] == CLIENT
