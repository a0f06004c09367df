"""What the service promises under fire, proven with real parts: `make faults`. Each test prints its figure."""
