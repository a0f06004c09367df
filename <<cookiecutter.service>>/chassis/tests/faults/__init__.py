"""What the service promises while its surroundings fail, tested with real servers: `make faults`.

Each test prints its figure.
"""
