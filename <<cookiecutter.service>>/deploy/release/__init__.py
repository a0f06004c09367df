"""Factor V: build an image, make a release of it, run the release: `python -m deploy.release --help`."""
