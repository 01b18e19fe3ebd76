"""Trained checkpoints to self-describing bundles."""
