"""MT-CP, one idea of the paper a file, and the standard baseline it is compared with."""

from training.model.config import (
    AnyNetworkConfig,
    BackboneConfig,
    CoherenceConfig,
    DecoderConfig,
    DeepLabConfig,
    ModelConfig,
)
from training.model.deeplab import DeepLab
from training.model.mtcp import MTCP
from training.model.network import Network, Predictions

__all__ = [
    "MTCP",
    "AnyNetworkConfig",
    "BackboneConfig",
    "CoherenceConfig",
    "DecoderConfig",
    "DeepLab",
    "DeepLabConfig",
    "ModelConfig",
    "Network",
    "Predictions",
    "build_network",
]


def build_network(config: AnyNetworkConfig) -> Network:
    """The network that ``config`` describes, randomly initialised."""
    return DeepLab(config) if isinstance(config, DeepLabConfig) else MTCP(config)
