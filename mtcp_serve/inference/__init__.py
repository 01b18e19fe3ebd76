"""From an image to the arrays of its maps."""
