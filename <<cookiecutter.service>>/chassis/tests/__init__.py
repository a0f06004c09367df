"""The proofs of the chassis, on a resource of their own: what a team changes in `service/` does not touch them."""
