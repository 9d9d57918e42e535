"""A Redis and a worker of the service's own, for one machine."""
