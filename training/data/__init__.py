"""Training data: mixtures of partially labelled sources as samples that all have the maps of every task."""

from training.data.config import AugmentConfig, SourceConfig
from training.data.errors import BrokenLabelsError, DataError, LabelError, SourceError
from training.data.mixture import Mixture, MixtureSampler
from training.data.sample import Batch, Sample, SampleKey, collate
from training.data.sources import Source, build_source
from training.data.validate import find_broken_labels, validate

__all__ = [
    "AugmentConfig",
    "Batch",
    "BrokenLabelsError",
    "DataError",
    "LabelError",
    "Mixture",
    "MixtureSampler",
    "Sample",
    "SampleKey",
    "Source",
    "SourceConfig",
    "SourceError",
    "build_source",
    "collate",
    "find_broken_labels",
    "validate",
]
