"""What the data side hands over: keys that name samples, samples, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.data.maps import PixelMap

Sample = dict[str, Any]
"""``id`` (str), ``image`` (uint8 RGB [3, H, W]) and one tensor a map of the network:

========================  =====================  ================================================
``semseg``, ``parsing``   uint8 [H, W]           target id of the task's label space, 255 missing
``saliency``, ``edges``   float16 [1, H, W]      0..1, -1 missing
``depth``                 float16 [1, H, W]      metres along the optical axis, 0 missing
``disparity``             float16 [1, H, W]      inverse depth up to scale and shift, 0 missing
``normals``               float16 [3, H, W]      unit vectors, x right, y up, z towards the camera,
                                                 (0, 0, 0) missing
========================  =====================  ================================================

A network with depth and normals also gets ``focal``, float32 [2]: the focal lengths over the width and over
the height of the image, see `training.geometry`.

A target id is a row of ``task.space.targets.members``, a set of the network's classes; in a label space that
maps no other it is a class id. All maps are always there, whatever the source has: batches have one shape.
Types are small because loaders are bound by copying: a sample of 288 x 384 has 1.9 MB.
"""

Batch = dict[str, Any]
"""A :data:`Sample` with a leading batch dimension; ``id`` is a list of str."""

Record = dict[str, Any]
"""What a reader returns: ``id``, ``image`` (``tv_tensors.Image``) and the maps it has, as
:class:`~training.data.maps.PixelMap`, each at its own resolution; ``focal`` (two floats) where the camera is
known."""


@dataclass(frozen=True, slots=True)
class SampleKey:
    """Names one sample of a mixture completely: equal keys give bit-identical samples in any process.

    ``donor`` names the sample whose objects are pasted into it.
    """

    source: int
    index: int
    seed: int
    donor: "SampleKey | None" = None


def finish(record: Record, types: dict[str, type[PixelMap]], size: tuple[int, int]) -> Sample:
    """The sample of a record whose image and maps have ``size`` (H, W); maps it lacks are all missing."""
    sample: Sample = {"id": record["id"], "image": record["image"].as_subclass(Tensor).contiguous()}
    for name, kind in types.items():
        sample[name] = record[name].packed() if name in record else kind.missing(size)
    if {"depth", "normals"} <= types.keys():
        sample["focal"] = torch.tensor(record["focal"], dtype=torch.float32)
    return sample


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of samples of the same network and size: tensors stacked, ids in a list."""
    batch: Batch = {}
    for name, value in samples[0].items():
        values = [sample[name] for sample in samples]
        batch[name] = torch.stack(values) if isinstance(value, Tensor) else values
    return batch
