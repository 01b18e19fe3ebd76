"""The gateway against other servers of the same graph: ``python -m benchmarks.peers IMAGE``."""
