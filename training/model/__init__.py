"""The MT-CP network, one idea of the paper a file."""

from training.model.config import BackboneConfig, CoherenceConfig, DecoderConfig, ModelConfig
from training.model.mtcp import MTCP, Predictions

__all__ = ["MTCP", "BackboneConfig", "CoherenceConfig", "DecoderConfig", "ModelConfig", "Predictions"]
