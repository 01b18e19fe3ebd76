"""Clients for a Triton that serves a generated repository, and for the gateway."""
