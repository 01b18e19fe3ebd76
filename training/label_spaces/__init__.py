"""Label spaces: the classes a task knows by name, and what the classes of other spaces mean in it.

A space is a YAML file, in this folder or your own; `training.label_spaces.files` says what is in one.
"""

from training.label_spaces.files import LABEL_SPACES, LabelSpaceError, plain_name
from training.label_spaces.space import IGNORE_LABEL, LabelSpace, bit_palette
from training.label_spaces.targets import Context, Part, Targets

__all__ = [
    "IGNORE_LABEL",
    "LABEL_SPACES",
    "Context",
    "LabelSpace",
    "LabelSpaceError",
    "Part",
    "Targets",
    "bit_palette",
    "plain_name",
]
