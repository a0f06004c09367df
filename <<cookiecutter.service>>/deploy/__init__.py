"""Factor V: build, release, run. How an image becomes a release, and a release the running service.

Start reading in `app.py` for what is there, in `release.py` for what moves.
"""
