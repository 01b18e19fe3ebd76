"""A mixed-precision FP16 graph beside the float32 one."""
