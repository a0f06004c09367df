"""What the service costs, beside the least that could do its work and beside what one would pick instead."""
