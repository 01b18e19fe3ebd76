"""Objects of one sample in another: the same thing before more backgrounds than were photographed.

Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation" (CVPR 2021),
for maps instead of instances: what is pasted is every pixel of the donor that is surely of a class to paste.
"""

from collections.abc import Sequence

import torch

from training.data.config import PasteConfig
from training.data.maps import map_types
from training.data.sample import Sample
from training.tasks import Task


class Paste:
    """Pastes by ``config`` for a network with ``tasks``.

    Raises:
        ValueError: the network has no such task with classes, or no such class.
    """

    def __init__(self, config: PasteConfig, tasks: Sequence[Task]) -> None:
        self._types = map_types(tasks)
        self._task = config.task
        space = {task.name: task.space for task in tasks}.get(config.task)
        if space is None:
            raise ValueError(f"the network has no task {config.task!r}")
        if unknown := [name for name in config.classes if name not in space.labels]:
            raise ValueError(f"{config.task} has no class {unknown[0]!r}; it has {', '.join(space.labels)}")
        others = [index for index, name in enumerate(space.labels) if name not in config.classes]
        self._objects = torch.zeros(256, dtype=torch.bool)
        members = torch.from_numpy(space.targets.members)
        self._objects[: len(members)] = ~members[:, others].any(1)

    def __call__(self, sample: Sample, donor: Sample) -> Sample:
        """``sample`` with the objects of ``donor``, of the same size; neither is changed.

        What each map makes of it: `PixelMap.pasted`.
        """
        objects = self._objects[donor[self._task].long()]
        if not objects.any():
            return sample
        pasted = {**sample, "image": torch.where(objects, donor["image"], sample["image"])}
        for name, kind in self._types.items():
            pasted[name] = kind.pasted(sample[name], donor[name], objects)
        return pasted
