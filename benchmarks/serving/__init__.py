"""The gateway against the engine inside it: ``python -m benchmarks.serving IMAGE``."""
