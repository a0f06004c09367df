"""A twelve-factor service. Start reading in `app.py`, then follow one request through `routes.py` and `notes.py`."""
