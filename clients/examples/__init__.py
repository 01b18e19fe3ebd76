"""Examples that run: ``python -m clients.examples.triton_predict IMAGE``."""
