"""The chassis: the machinery of the twelve factors, the same in every service of this template.

The template updates this package; a team does not edit it. What a service is about is in `service/`, which builds on
the chassis. The chassis never imports `service` (the linter checks it).

| factor                 | where                                                   |
|------------------------|---------------------------------------------------------|
| I Codebase             | one repository, many deploys: `.github/workflows/ci.yml`|
| II Dependencies        | `pyproject.toml`, `requirements.txt`                    |
| III Config             | `config.py`                                             |
| IV Backing services    | `db.py`                                                 |
| V Build, release, run  | `Dockerfile`, `deploy/`                                 |
| VI Processes           | `app.py`: nothing is kept between requests              |
| VII Port binding       | `web.py`                                                |
| VIII Concurrency       | `server.py`, `Procfile`                                 |
| IX Disposability       | `lifecycle.py`                                          |
| X Dev/prod parity      | `compose.yaml`, `dev/postgres.py`                       |
| XI Logs                | `logs.py`                                               |
| XII Admin processes    | `admin.py`                                              |
"""
