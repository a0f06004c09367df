"""Variables of a valid configuration, and the faults of one that is refused."""

import pytest

from chassis import config

URL = "postgresql://user:hunter2-hunter2@postgres.example.com/probes"
TOKENS = {"JWKS_URL": "https://issuer.example.com/keys", "TOKEN_ISSUER": "issuer", "TOKEN_AUDIENCE": "audience"}


def faults(monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, str]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(config.ConfigError) as refused:
        config.load(config.Config)
    return refused.value.faults
