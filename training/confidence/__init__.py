"""Confidence heads: fitted to a trained network that stays as it is, then calibrated on held-out images."""
