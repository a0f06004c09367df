"""An issuer of tokens for tests: it publishes one key on loopback, and signs what it is asked to."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519


class Issuer:
    """An issuer whose keys are found at `url`."""

    name, audience = "https://issuer.example.com/", "https://service.example.com/"

    def __init__(self) -> None:
        self._key = ed25519.Ed25519PrivateKey.generate()
        jwk = jwt.get_algorithm_by_name("EdDSA").to_jwk(self._key.public_key(), as_dict=True)
        keys = json.dumps({"keys": [{**jwk, "kid": "test"}]}).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(keys)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"

    @property
    def variables(self) -> dict[str, str]:
        """The variables of a service that asks for tokens of this issuer."""
        return {"JWKS_URL": self.url, "TOKEN_ISSUER": self.name, "TOKEN_AUDIENCE": self.audience}

    def token(self, subject: str, *scopes: str, **claims: object) -> str:
        """Return a token, valid for a day."""
        said = {"iss": self.name, "aud": self.audience, "sub": subject, "exp": int(time.time()) + 86_400}
        return jwt.encode(said | {"scope": " ".join(scopes)} | claims, self._key, "EdDSA", {"kid": "test"})


@contextmanager
def running() -> Iterator[Issuer]:
    """Run an issuer."""
    issuer = Issuer()
    with issuer.server as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield issuer
        server.shutdown()
