"""The template's tests: what it accepts, what it renders, and that the service which comes out passes its own gates."""
