"""What the service costs, compared with a bare Flask application that does the same work and with alternatives."""
