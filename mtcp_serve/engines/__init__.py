"""Engines run the graph of a bundle."""
