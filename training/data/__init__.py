"""Training data: mixtures of partially labelled sources as samples that all have the maps of every task."""

from training.data.config import AugmentConfig, PasteConfig, SourceConfig
from training.data.errors import BrokenLabelsError, DataError, LabelError, SourceError
from training.data.mixture import Mixture, MixtureSampler, draw
from training.data.paste import Paste
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
    "Paste",
    "PasteConfig",
    "Sample",
    "SampleKey",
    "Source",
    "SourceConfig",
    "SourceError",
    "build_source",
    "collate",
    "draw",
    "find_broken_labels",
    "validate",
]
