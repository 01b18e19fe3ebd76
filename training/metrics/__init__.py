"""How well the maps of a network match their labels, in the protocols of the field side by side."""

from training.metrics.delta_mtl import delta_mtl
from training.metrics.evaluation import Evaluation
from training.metrics.labels import maps_in_other_spaces

__all__ = ["Evaluation", "delta_mtl", "maps_in_other_spaces"]
