"""The chassis: the machinery of the twelve factors, the same in every service that this template generates.

The template updates this package, and a team does not edit it. What a service is about is in `service/`, which builds
on the chassis; the chassis never imports `service` (the linter checks it).

| factor | law | where |
|---|---|---|
| I Codebase | one repository, many deploys | `.github/workflows/ci.yml` |
| II Dependencies | declared, exact, isolated | `pyproject.toml`, `requirements.txt` |
| III Config | in the environment, read once, refused early | `chassis/config.py`, `.env.example` |
| IV Backing services | a URL behind a name, swapped without a change of code | `chassis/db.py` |
| V Build, release, run | one image; a release adds configuration | `Dockerfile`, `deploy/` |
| VI Processes | nothing is kept between requests | `chassis/app.py` |
| VII Port binding | the service is its own web server | `chassis/web.py` |
| VIII Concurrency | more processes of the same kind | `chassis/server.py`, `Procfile` |
| IX Disposability | start fast, stop gracefully | `chassis/lifecycle.py` |
| X Dev/prod parity | the same image, the same PostgreSQL | `compose.yaml` |
| XI Logs | a stream of events on stdout | `chassis/logs.py` |
| XII Admin processes | same image, same configuration, one-off | `chassis/admin.py` |
"""
