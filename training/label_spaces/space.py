"""A label space: names and colors of classes, and what labels of it or of other spaces say."""

from dataclasses import dataclass, field
from functools import cached_property

from training.label_spaces.targets import IGNORE_LABEL, Mapped, Targets, build_targets

__all__ = ["IGNORE_LABEL", "LabelSpace", "bit_palette"]


@dataclass(frozen=True)
class LabelSpace:
    """Names and colors of the classes of a ``labels`` task, index = class id."""

    name: str
    labels: tuple[str, ...]
    palette: tuple[str, ...]
    """Colours ``#rrggbb``."""
    people_only: bool = False
    """Parts of people: by the published protocols an image without any of them is not scored."""
    mapped: tuple[Mapped, ...] = field(default=(), repr=False, hash=False)
    """The other spaces whose labels this one understands."""
    file: str = field(default="", repr=False, compare=False)
    """Where it was read, for messages."""

    @cached_property
    def targets(self) -> Targets:
        """What a pixel's label may say about the classes of this space."""
        return build_targets(self.name, self.labels, self.mapped)


def bit_palette(count: int) -> tuple[str, ...]:
    """Colours ``#rrggbb`` of the PASCAL VOC scheme: bits of the class id spread over the channels."""
    colors = []
    for index in range(count):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colors.append("#{:02x}{:02x}{:02x}".format(*rgb))
    return tuple(colors)
