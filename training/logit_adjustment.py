"""Taking class weights back from the logits of a trained network, as far as is wanted, class by class.

Cross-entropy weighted by w is least at logits shifted by log w against the true posterior. That helps to
learn rare classes, and makes a network call too much by their names. Logit adjustment (Menon et al.,
"Long-tail learning via logit adjustment", ICLR 2021) moves the logits instead of training again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from training.model import Network
from training.tasks import Task


class StrengthError(ValueError):
    """A strength that names nothing that there is, or is not a number from 0 to 1."""


@dataclass(frozen=True)
class Strengths:
    """How much of the class weights to take back, 0 to 1: ``everywhere``, or of a task or some classes.

    ``particular`` has strengths by ``TASK``, or by ``TASK/SPACE`` for those classes of the network that are
    alone what a class of the label space may be: of ``semseg/voc`` in `objects_rooms` its 20 objects.
    """

    everywhere: float = 0.0
    particular: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, entries: Sequence[str]) -> "Strengths":
        """From ``0.25``, ``parsing=1`` and ``semseg/voc=0.5``; of two for the same the later one counts.

        Raises:
            StrengthError: an entry is none of these.
        """
        everywhere, particular = 0.0, {}
        for entry in entries:
            name, sign, number = entry.rpartition("=")
            try:
                strength = float(number)
            except ValueError:
                strength = float("nan")
            if not 0 <= strength <= 1 or (sign and not name):
                raise StrengthError(
                    f"--undo-class-weights {entry}: give a strength from 0 to 1, or one for a task or the "
                    "classes of a label space, as in parsing=1 or semseg/voc=0.5"
                )
            if name:
                particular[name] = strength
            else:
                everywhere = strength
        return cls(everywhere, particular)

    def of_classes(self, task: Task) -> list[float]:
        """The strength for each class of ``task``.

        Raises:
            StrengthError: the task has no such label space.
        """
        found = [self.particular.get(task.name, self.everywhere)] * task.channels
        assert task.space is not None
        parts = task.space.targets.parts
        for key, strength in self.particular.items():
            name, _, space = key.partition("/")
            if name != task.name or not space:
                continue
            if space not in parts:
                raise StrengthError(
                    f"--undo-class-weights {key}: {name} knows the label spaces {', '.join(parts)}"
                )
            members = parts[space].members
            for index in members[members.sum(1) == 1].any(0).nonzero()[0].tolist():
                found[index] = strength
        return found


@torch.no_grad()
def undo_class_weights(
    network: Network, class_weights: Mapping[str, Sequence[float]], strengths: Strengths
) -> None:
    """Subtract strength * log(weight) from the final logits of each class, in place.

    A class of weight 0 was never learned; its logit stays as it is.

    Raises:
        StrengthError: a strength is for a task that has no class weights, or a label space that it lacks.
    """
    for key in strengths.particular:
        if key.partition("/")[0] not in class_weights:
            known = ", ".join(class_weights) or "no task"
            raise StrengthError(f"--undo-class-weights {key}: the run weighed the classes of {known}")
    tasks = {task.name: task for task in network.tasks}
    for name, weights in class_weights.items():
        bias = network.output_bias(name)
        factors = torch.tensor(weights)
        logs = torch.where(factors > 0, factors, 1).log()
        bias -= (torch.tensor(strengths.of_classes(tasks[name])) * logs).to(bias)
