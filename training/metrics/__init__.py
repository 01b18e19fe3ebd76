"""How well the maps of a network match their labels, in the protocols of the field side by side."""

from training.metrics.base import Report
from training.metrics.delta_mtl import delta_mtl
from training.metrics.evaluation import Evaluation
from training.metrics.labels import maps_in_other_spaces

__all__ = ["Evaluation", "Report", "delta_mtl", "maps_in_other_spaces"]
