"""What the services of an environment share: network, cluster, load balancer, zone, PostgreSQL."""
