"""What one task knows that another should heed: where semantics see a person, parsing sees parts of one.

Not in the paper, whose coherence is learned alone (CFM). A deployment rule behind a named flag.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from training.tasks import Task

PERSON, BACKGROUND = "person", "background"
LEAST = 1e-3
"""Floor of the probability that nobody is there: bounds what certain semantics take from background."""


class PartsOnPeople(nn.Module):
    """Lowers the background of human parsing by how sure semantics are that somebody is there.

    With p the probability of ``person``, the logit of ``background`` gains log(1 - p): the product of what
    the two heads say about nobody being there. Rare clothes, such as a space suit, are then no background.

    Args:
        tasks: of the network; one has a label space of people's parts, one other a class ``person``.

    Raises:
        ValueError: there is no such pair of tasks.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        spaces = {task.name: task.space for task in tasks if task.space is not None}
        parts = [name for name, space in spaces.items() if space.people_only and BACKGROUND in space.labels]
        people = [name for name, space in spaces.items() if PERSON in space.labels]
        if not parts or not people:
            raise ValueError(
                "parts_on_people needs a task with parts of people (parsing) and one with the class "
                f"{PERSON!r} (semseg); set it to false"
            )
        self.parts, self.people = parts[0], people[0]
        self.background = spaces[self.parts].labels.index(BACKGROUND)
        self.person = spaces[self.people].labels.index(PERSON)

    def forward(self, final: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predictions by task name, logits [B, K, h, w] of both among them -> the same, parts adjusted."""
        logits = final[self.people].float()
        likely = (logits - logits.amax(1, keepdim=True)).exp()  # a softmax whose rows are never moved
        person = likely[:, self.person : self.person + 1] / likely.sum(1, keepdim=True)
        nobody = (1 - person).clamp_min(LEAST).log()
        logits, at = final[self.parts], self.background
        background = logits[:, at : at + 1] + nobody.to(logits.dtype)
        adjusted = torch.cat([logits[:, :at], background, logits[:, at + 1 :]], 1)
        return {**final, self.parts: adjusted}
