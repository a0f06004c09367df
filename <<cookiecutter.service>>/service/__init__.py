"""What this service is about: it is yours to change. The machinery behind it is in `chassis/`.

Start reading in `app.py`, then follow one request through `api.py` and `notes.py`.
"""
