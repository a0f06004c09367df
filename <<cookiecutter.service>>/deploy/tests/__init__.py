"""The way to production, tried without AWS: synthesised, linted, and run against moto's server."""
