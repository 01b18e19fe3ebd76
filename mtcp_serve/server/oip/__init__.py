"""The Open Inference Protocol (KServe v2) in front of the engines, so that Triton's clients work unchanged.

One input, ``image``: uint8 ``[batch, height, width, 3]`` RGB of the model's size. One output per task, named
as in the manifest: UINT8 labels ``[batch, height, width]``, FP32 otherwise (normals with a last axis of 3).
The outputs that say how sure the model is of a map (FP32 ``[batch, h, w]``) are given only where they are
named.
"""
