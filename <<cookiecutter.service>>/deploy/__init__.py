"""Factor V: build, release, run.

`app.py` is the CDK application: `platform/` is what services share, `service/` is this one. `release/` is the command
that builds images, makes releases of them and gives them the traffic. `hooks.py` and `checks.py` test a
release, with what the team writes about its service in `smoke.py`.
"""
