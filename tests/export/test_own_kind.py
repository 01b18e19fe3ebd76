"""A kind of task of one's own, from its label files to the maps of a server, by entries in tables alone."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from torch import Tensor

from export import bundle_writer, parity
from export.onnx.cli import export_checkpoint
from export.validation_images import load_images
from mtcp_serve.kinds import KINDS
from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.kinds.albedo import AlbedoTask
from training import losses, postprocess, tasks
from training.config import RunConfig
from training.data import maps
from training.metrics import evaluation
from training.metrics.base import TaskMetric
from training.metrics.delta_mtl import HEADLINE, headline
from training.pseudo.labelling import PseudoLabelError, PseudoLabeller
from training.tasks import Task
from training.trainer import LAST, Trainer

HEIGHT, WIDTH = 32, 48


class AlbedoMap(maps.PixelMap):
    """Reflected shares, float32 [3, H, W]; -1 is missing."""

    ignore = -1.0
    channels = (3,)
    modes = ("RGB",)

    def valid(self) -> Tensor:
        return (self.plain() >= 0).all(0, keepdim=True)


class AlbedoMetric(TaskMetric):
    """``mae``: mean absolute error."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.add_state("error", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("values", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        difference = (output.movedim(-1, 1) - target).abs()[(target >= 0).expand_as(target)]
        self.error += difference.sum()
        self.values += difference.numel()

    def compute(self) -> dict[str, float]:
        return {"mae": float(self.error / self.values)} if self.values else {}


def albedo_loss(logits: Tensor, batch: Mapping[str, Tensor], task: Task) -> Tensor:
    target = batch[task.name].float()
    return ((logits.sigmoid() - target).abs() * (target >= 0)).mean()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every entry that CONTRIBUTING.md names; nothing else is touched."""
    for table, found in (
        (KINDS, AlbedoTask),
        (tasks.TASKS, "albedo"),
        (tasks.CHANNELS, 3),
        (losses.VALID, lambda target: target.amin(dim=1, keepdim=True) >= 0),
        (losses.LOSSES, albedo_loss),
        (evaluation.METRICS, AlbedoMetric),
        (HEADLINE, ("mae", False)),
        (postprocess.ACTIVATIONS, lambda logits: logits.sigmoid().movedim(1, -1)),
        (maps.MAPS, AlbedoMap),
        (bundle_writer.SPECS, lambda task, trained_on: AlbedoTask(name=task.name, light="D65")),
        (parity.EVALUATORS, parity.evaluate_probability),
    ):
        monkeypatch.setitem(table, "albedo", found)


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    """A run on images that are their own albedo, in label files."""
    rows, columns = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    for folder in ("images", "albedo", "splits"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for name in "abcd":
        waves = [127 + 127 * np.sin(ord(name) + 9 * rows * phase + 7 * columns) for phase in (1, 2, 3)]
        picture = Image.fromarray(np.stack(waves, -1).astype(np.uint8))
        for folder in ("images", "albedo"):
            picture.save(tmp_path / "data" / folder / f"{name}.png")
    for split in ("train", "val"):
        (tmp_path / "data" / "splits" / f"{split}.txt").write_text("a\nb\nc\nd\n")
    sources = {
        split: [{"kind": "folder", "root": str(tmp_path / "data"), "split": split}]
        for split in ("train", "val")
    }
    return RunConfig.model_validate(
        {
            "name": "albedo",
            "model": {"kind": "deeplab", "encoder": "test_resnet", "tasks": {"albedo": None}},
            "data": {**sources, "height": HEIGHT, "width": WIDTH, "batch_size": 4, "workers": 0},
            "init": None,
            "epochs": 3,
            "tensorboard": False,
        }
    )


def test_it_trains_exports_and_is_served(run: RunConfig, tmp_path: Path) -> None:
    trainer = Trainer(run, tmp_path / "run")
    before = trainer.validate()[trainer.shipped]["albedo"]["mae"]
    trainer.train()
    after = trainer.validate()[trainer.shipped]["albedo"]
    assert headline(after, run.tasks[0], "mtcp") == after["mae"] < before
    images = tmp_path / "data" / "images"
    bundle = export_checkpoint(
        tmp_path / "run" / LAST,
        tmp_path / "bundle",
        load=lambda height, width: load_images(images, height, width, None),
    )
    assert bundle.manifest.tasks == (AlbedoTask(name="albedo", light="D65"),)
    assert "relative_error_p99" in bundle.parity()["tasks"]["albedo"]["batch_1"]
    pixels = torch.from_numpy(np.asarray(Image.open(images / "a.png"))[None].copy())
    with torch.inference_mode():
        final = trainer.best.eval()(pixels.movedim(-1, 1).float()).final
        expected = postprocess.deployment_maps(final, run.tasks, (HEIGHT, WIDTH))["albedo"][0]
    with TestClient(create_app(Settings(bundle=(bundle.folder,), intra_op_threads=1))) as client:
        headers = {"Content-Type": "image/png"}
        answer = client.post("/predict?format=npz", content=(images / "a.png").read_bytes(), headers=headers)
    np.testing.assert_allclose(np.load(BytesIO(answer.content))["albedo"], expected, atol=1e-3)
    with pytest.raises(PseudoLabelError, match="no entry for the kind 'albedo'; leave it out with --tasks"):
        PseudoLabeller(bundle.folder, tmp_path / "labels", None, 0.9)
