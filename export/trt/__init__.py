"""TensorRT plans that prove themselves: strongly typed, read back, compared, tied to a machine."""
