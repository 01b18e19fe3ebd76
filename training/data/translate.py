"""Class ids of one label space as those of another, where they mean the same."""

import torch
from torch import Tensor

from training.data.maps import LabelMap
from training.tasks import IGNORE_LABEL, LABEL_SPACES

SAME_THING: dict[tuple[str, str], dict[str, str | None]] = {
    ("nyu40", "voc"): {
        "chair": "chair",
        "sofa": "sofa",
        "television": "tvmonitor",
        "person": "person",
        # a table or a desk may be a dining table, and "other" things may be anything
        "table": None,
        "desk": None,
        "otherstructure": None,
        "otherfurniture": None,
        "otherprop": None,
    },
    # the 13 classes of Couprie et al. (arXiv 1301.3572) as SceneNet maps the 40 to them
    ("nyu40", "nyu13"): {
        "wall": "wall",
        "floor": "floor",
        "cabinet": "furniture",
        "bed": "bed",
        "chair": "chair",
        "sofa": "sofa",
        "table": "table",
        "door": "wall",
        "window": "window",
        "bookshelf": "furniture",
        "picture": "picture",
        "counter": "furniture",
        "blinds": "window",
        "desk": "table",
        "shelves": "furniture",
        "curtain": "window",
        "dresser": "furniture",
        "pillow": "objects",
        "mirror": "objects",
        "floor mat": "floor",
        "clothes": "objects",
        "ceiling": "ceiling",
        "books": "books",
        "refridgerator": "furniture",
        "television": "tv",
        "paper": "objects",
        "towel": "objects",
        "shower curtain": "objects",
        "box": "objects",
        "whiteboard": "objects",
        "person": "objects",
        "night stand": "furniture",
        "toilet": "objects",
        "sink": "objects",
        "lamp": "objects",
        "bathtub": "objects",
        "bag": "objects",
        "otherstructure": "objects",
        "otherfurniture": "furniture",
        "otherprop": "objects",
    },
}
"""By (from, to): what a class is called there, None where that cannot be said; every other is background."""


def translation(theirs: str, ours: str) -> Tensor | None:
    """The class id in space ``ours`` for each of 256 ids of space ``theirs``, or None: there is no table."""
    if (theirs, ours) not in SAME_THING:
        return None
    same, targets = SAME_THING[theirs, ours], LABEL_SPACES[ours].labels
    table = torch.full((256,), IGNORE_LABEL, dtype=torch.uint8)
    for index, label in enumerate(LABEL_SPACES[theirs].labels):
        name = same.get(label, "background")
        if name is not None:
            table[index] = targets.index(name)
    return table


def parts_where_nobody_is(semseg: Tensor, person: int) -> LabelMap:
    """Parsing labels [H, W] that semantics [H, W] imply: background where a class is known and no person."""
    elsewhere = (semseg != person) & (semseg != IGNORE_LABEL)
    return LabelMap.of(torch.where(elsewhere, 0, IGNORE_LABEL).to(semseg.dtype))
