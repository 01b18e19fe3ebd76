"""Every choice of the network as a typed value; each deviation from the paper is a named flag."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from training.label_spaces.kept import KeepsSpaces
from training.model.agreement import PartsOnPeople
from training.strict import Strict
from training.tasks import Task, make_task


class BackboneConfig(Strict):
    """Mask2Former: an encoder, a deformable pixel decoder and a masked-attention transformer decoder.

    The defaults are the paper's (Sec. 4.2): Swin-S, 6 pixel-decoder layers, 9 decoder layers, 100 queries.
    """

    encoder: str = "swin_small"
    """``swin_small`` (transformers) or the name of any timm encoder."""
    drop_path: float = Field(0.3, ge=0, lt=1)
    channels: int = Field(256, gt=0, multiple_of=32)
    """C, the channels of the pixel embeddings P; also the width of the pixel and transformer decoders."""
    encoder_layers: int = Field(6, ge=1)
    encoder_feedforward: int = Field(1024, gt=0)
    decoder_layers: int = Field(9, ge=1)
    decoder_feedforward: int = Field(2048, gt=0)
    heads: int = Field(8, gt=0)
    queries: int = Field(100, gt=0)
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    mask_aggregation: Literal["sum_logits", "mean_sigmoid"] = "sum_logits"
    """How the N masks become one gate on P. Paper's reading: ``sum_logits``; ``mean_sigmoid`` is bounded."""
    classifier_features: bool = False
    """timm encoders only: feed the encoder's widened pre-classifier features in place of its last stage."""
    context_channels: int = Field(0, ge=0, multiple_of=32)
    """Channels that carry the encoder's deepest level straight into R, beside P's. Paper: 0."""
    freeze_stages: int = Field(0, ge=0)
    """timm encoders only: the stem and this many stages keep their initial weights. Paper: 0, all trained."""
    freeze_norm: bool = False
    """Keep the encoder's batch-norm statistics and scales as initialised. Paper: False."""


class DecoderConfig(Strict):
    """The hierarchical transformer of one task (Sec. 3.2)."""

    channels: int = Field(256, gt=0)
    """Width of stage 1, doubled at each stage. Where it differs from C a 1x1 projection precedes it."""
    depths: tuple[int, int, int] = (1, 2, 1)
    heads: int = Field(2, gt=0)
    window: int = Field(7, gt=1)
    mlp_ratio: float = Field(4.0, gt=0)
    fusion: Literal["sum", "dynamic"] = "sum"
    """DFPN levels: plain top-down sum, or learned softmax-normalised weights as in the cited DFPN paper."""


class CoherenceConfig(Strict):
    """The coherence fusion module (Sec. 3.3)."""

    kv_stride: int = Field(1, ge=1)
    """Average-pool what keys and values are made from by this factor per side. Paper: 1."""
    mixed_channels: int | None = Field(None, gt=0)
    """Width of F, the mixed other tasks. Paper: null, the T - 1 widths concatenated."""
    shared_gates: bool = False
    """One gate per source task, used by all fusions. Paper: a gate per pair of tasks."""
    affinity_scale: Literal["one", "rsqrt"] = "one"
    """Scale of the affinity logits: 1 (paper) or 1/sqrt(channels)."""
    residual: bool = False
    """Add X_i to the fused features. Paper: no residual."""
    main_relu: bool = True
    """ReLU on the main task's features m, as the paper writes it."""


class NetworkConfig(KeepsSpaces, Strict):
    """What every kind of network is told."""

    tasks: dict[str, str | None]
    """Task name -> label space (``labels`` tasks) or null, in the order of the heads."""

    @model_validator(mode="after")
    def _known_tasks(self) -> "NetworkConfig":
        if not self.tasks:
            raise ValueError("tasks is empty; name at least one task")
        self.task_list()
        return self

    def task_list(self) -> list[Task]:
        """The tasks of the network, in head order."""
        return [make_task(name, space, self._kept) for name, space in self.tasks.items()]


class ModelConfig(NetworkConfig):
    """MT-CP."""

    kind: Literal["mtcp"] = "mtcp"
    backbone: BackboneConfig = BackboneConfig()
    decoder: DecoderConfig = DecoderConfig()
    coherence: CoherenceConfig = CoherenceConfig()
    cfm: bool = True
    """Coherence fusion; without it X_i itself is traced back (Table 3)."""
    srm: bool = True
    """Trace-back refinement; without it the head reads H_i (Table 3)."""
    predict_from_fused: bool = True
    """Intermediate prediction on H_i beside those of SRM 1 and 2: the paper's K = 3."""
    depth_activation: Literal["none", "softplus"] = "none"
    """Paper: none. ``softplus`` keeps metres positive where inverse depth is supervised too."""

    normals_facing: bool = False
    """Take the absolute value of the normals' z: what is seen faces the camera. Paper: False."""
    parts_on_people: bool = False
    """In evaluation, parsing heeds where semantics see a person (`agreement`). Paper: False."""
    confidence: bool | tuple[str, ...] = False
    """Say in evaluation how sure each map is, or those of these tasks; ``python -m training confidence`` fits
    what that takes and sets this. Paper: False."""

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        if self.parts_on_people:
            PartsOnPeople(self.task_list())
        if self.cfm and len(self.tasks) == 1:
            raise ValueError("cfm fuses a task with the others; with one task set cfm: false")
        if not isinstance(self.confidence, bool) and (unknown := set(self.confidence) - set(self.tasks)):
            raise ValueError(f"confidence names {min(unknown)!r}, which is no task of the network")
        return self

    def confident(self) -> list[Task]:
        """The tasks with a confidence, in head order."""
        chosen = self.confidence
        return [task for task in self.task_list() if chosen is True or (chosen and task.name in chosen)]


class DeepLabConfig(NetworkConfig):
    """One dilated encoder shared by a DeepLabv3 head a task: the standard multi-task baseline."""

    kind: Literal["deeplab"] = "deeplab"
    encoder: str = "resnet50.tv_in1k"
    """Name of a convolutional timm encoder, with the tag of its weights for ``init: imagenet``."""
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @model_validator(mode="before")
    @classmethod
    def _nothing_of_mtcp(cls, settings: Any) -> Any:
        foreign = (set(settings) & set(ModelConfig.model_fields)) - set(cls.model_fields)
        if foreign:
            names = ", ".join(name for name in settings if name in foreign)
            raise ValueError(
                f"{names}: parts of MT-CP, which a network of kind deeplab does not have; take them out"
            )
        return settings


def _kind(settings: Any) -> Any:
    return settings.get("kind", "mtcp") if isinstance(settings, dict) else getattr(settings, "kind", None)


AnyNetworkConfig = Annotated[
    Annotated[ModelConfig, Tag("mtcp")] | Annotated[DeepLabConfig, Tag("deeplab")],
    Discriminator(
        _kind,
        custom_error_type="unknown_kind",
        custom_error_message="kind must be mtcp (the default) or deeplab",
    ),
]
"""The settings of a network by its ``kind``."""
