"""A rehearsal of deployments and failures on this machine, with real containers: `make rehearse`.

Start reading in `__main__.py`. A rehearsal has a stage (`stage.py`: zones, database, balancer), a fleet of tasks on it
(`fleet.py`, with its scheduler in `scheduler.py`), a steady load, and a record of what happens (`record.py`). Under the
load there is either one blue/green deployment (`deployment.py`), or a series of failures (`events.py`).
"""
