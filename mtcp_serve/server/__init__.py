"""The gateway: HTTP, the Open Inference Protocol, and what guards them."""
