"""The service's tests: a file per module, a real PostgreSQL, and a real gunicorn where processes matter."""
