"""Procedural rooms with people and furniture, and exact ground truth for all five tasks.

``camera`` makes rays, ``shapes`` says where they hit, ``surface`` what colour is there; ``people`` and
``furniture`` build things out of shapes, ``layout`` puts them into a room, ``render`` draws the image and
its maps, ``reader`` makes them a source.
World axes: x right, y up, z towards a camera without pitch and yaw; metres throughout.
"""
