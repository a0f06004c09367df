"""What belongs to this service: its images, its tasks, and how a new release gets the traffic."""
