"""Bundles: what a model is as files, and what its manifest says."""
