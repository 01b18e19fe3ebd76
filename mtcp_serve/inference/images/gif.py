"""GIF: the first frame, cut out of the file."""

import struct
from typing import Final

from mtcp_serve.errors import InvalidImageError
from mtcp_serve.inference.images.limits import ImageLimits
from mtcp_serve.inference.images.still import Still, opener, too_much

MAX_BLOCKS: Final = 262_144
"""Blocks of at most 255 bytes, up to where the second frame begins."""
_EXTENSION, _IMAGE = 0x21, 0x2C
_CONTROL: Final = 0xF9


class _Walk:
    """A place in the file; reading beyond the end is an `IndexError`."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.position = position
        self._blocks = 0

    def skip_table(self, flags: int) -> None:
        """Pass over a palette, if ``flags`` say that there is one."""
        if flags & 0x80:
            self.position += 3 << ((flags & 7) + 1)

    def skip_blocks(self) -> None:
        """Pass over data blocks and the empty one that ends them."""
        data, position = self.data, self.position
        while size := data[position]:
            position += size + 1
            self._blocks += 1
            if self._blocks > MAX_BLOCKS:
                raise too_much("blocks", self._blocks, MAX_BLOCKS)
        self.position = position + 1

    def next_image(self) -> bytes:
        """Go to the next frame, past its extensions; the last graphic control among them.

        Raises:
            IndexError: there is no frame.
        """
        control = b""
        while self.data[self.position] != _IMAGE:
            start = self.position
            if self.data[start] != _EXTENSION:
                raise IndexError
            self.position += 2
            self.skip_blocks()
            if self.data[start + 1] == _CONTROL:
                control = self.data[start : self.position]
        return control


def look(data: bytes, limits: ImageLimits) -> Still:
    """Find the first frame, and whether there is another one.

    Raises:
        InvalidImageError: there is no whole frame.
        ImageTooLargeError: there are too many blocks.
    """
    canvas = struct.unpack_from("<HH", data, 6)
    walk = _Walk(data, 13)
    walk.skip_table(data[10])
    head = data[: walk.position]
    try:
        control = walk.next_image()
        start = walk.position
        left, top, width, height, flags = struct.unpack_from("<HHHHB", data, start + 1)
        walk.position += 10
        walk.skip_table(flags)
        walk.position += 1  # the code size
        walk.skip_blocks()
    except IndexError as error:
        raise InvalidImageError("the GIF image has no whole frame") from error
    frame = data[start : walk.position]
    try:
        walk.next_image()
        animated = True
    except IndexError:
        animated = False
    return Still(
        "GIF",
        max(canvas[0], left + width),  # a frame that sticks out makes the image larger
        max(canvas[1], top + height),
        opener("GIF", head + control + frame + b";"),
        animated=animated,
    )
