"""Size, operations and latency of networks, timed in turn on this machine."""
