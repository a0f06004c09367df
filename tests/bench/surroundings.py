"""What traces and tokens need beside the service: a collector that takes all spans, and an issuer with one key.

It runs in the service's environment, prints the variables and a token, and ends with its standard input.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC: Any = jwt.get_algorithm_by_name("ES256").to_jwk(KEY.public_key(), as_dict=True)
CLAIMS = {"iss": "https://issuer.example.com/", "aud": "https://notes.example.com/", "sub": "bench"}


class Handler(BaseHTTPRequestHandler):
    """Publishes the key, and takes spans."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Return the key."""
        self._answer(json.dumps({"keys": [{**PUBLIC, "kid": "bench"}]}).encode())

    def do_POST(self) -> None:
        """Take spans."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(b"")

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
token = jwt.encode({**CLAIMS, "exp": time.time() + 86_400}, KEY, "ES256", {"kid": "bench"})
tokens = {"JWKS_URL": f"{url}/keys", "TOKEN_ISSUER": CLAIMS["iss"], "TOKEN_AUDIENCE": CLAIMS["aud"]}
given = {"traces": {"OTEL_EXPORTER_OTLP_ENDPOINT": url}, "tokens": tokens, "authorization": f"Bearer {token}"}
sys.stdout.write(json.dumps(given) + "\n")
sys.stdout.flush()
sys.stdin.readline()
