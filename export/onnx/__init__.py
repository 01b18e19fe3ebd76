"""A trained checkpoint becomes a bundle with an ONNX graph."""
