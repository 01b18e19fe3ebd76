"""Bundles: what a model is as files, and what its manifest says."""

from pathlib import Path

BUNDLES = Path(__file__).parent.parent / "bundles"
"""Where the bundles that ship with the package are."""
DEFAULT_BUNDLE = BUNDLES / "mtcp-lite"
