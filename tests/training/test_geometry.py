"""The surface of a depth map against planes and against the exact geometry of drawn scenes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training.tiny import tiny_run
from training.config import ConfigError
from training.data import SourceConfig, build_source, collate
from training.data.sources import assumed_focal
from training.geometry import geometry_loss, normals_of_depth, smooth
from training.metrics import Evaluation
from training.metrics.geometry import GeometryMetric
from training.objective import labels_at
from training.tasks import make_task

TASKS = [make_task("depth"), make_task("normals")]
FOCAL = torch.tensor([[1.1, 0.9]])


def plane(normal: Tensor, distance: float, height: int = 18, width: int = 24) -> Tensor:
    """Depth [1,1,h,w] of the plane with this unit normal (x right, y up, z to the camera) in front of us."""
    x = ((torch.arange(width) + 0.5) / width - 0.5) / FOCAL[0, 0]
    y = (0.5 - (torch.arange(height) + 0.5) / height) / FOCAL[0, 1]
    rays = torch.stack(
        [x.expand(height, width), y[:, None].expand(height, width), -torch.ones(height, width)]
    )
    return (-distance / (normal @ rays.flatten(1))).view(1, 1, height, width)


@pytest.mark.parametrize("normal", [(0.0, 0.0, 1.0), (0.6, 0.0, 0.8), (0.0, 0.8, 0.6), (-0.48, 0.36, 0.8)])
def test_a_plane_has_one_normal(normal: tuple[float, float, float]) -> None:
    wanted = torch.tensor(normal)
    found = normals_of_depth(plane(wanted, 2.0), FOCAL)
    assert torch.allclose(found, wanted[None, :, None, None].expand_as(found), atol=1e-3)


def test_scenes_draw_the_normals_that_their_depth_has() -> None:
    source = build_source(SourceConfig(kind="scenes", count=4), TASKS, (120, 160), None)
    batch = collate([source[index] for index in range(4)])
    depth, normals = batch["depth"].float(), batch["normals"].float()
    found = normals_of_depth(depth, batch["focal"])
    cosine = (found * normals).sum(1, keepdim=True)[smooth(depth) & (normals != 0).any(1, keepdim=True)]
    assert cosine.rad2deg().isfinite().all()
    assert cosine.clamp(-1, 1).acos().rad2deg().median() < 4  # flat but for the millimetres of half precision


def test_cameras_nobody_says_see_sixty_degrees_over_the_longer_side() -> None:
    for height, width in ((300, 400), (400, 300)):
        fx, fy = assumed_focal(height, width)
        assert fx * width == pytest.approx(fy * height)  # square pixels
        over_longer = fx if width > height else fy
        assert 2 * math.degrees(math.atan(0.5 / over_longer)) == pytest.approx(60)


def test_what_agrees_costs_nothing_and_a_right_angle_costs_one() -> None:
    wanted = torch.tensor([0.6, 0.0, 0.8])
    depth = plane(wanted, 2.0)
    same = wanted[None, :, None, None].expand(1, 3, 18, 24) * 7  # of any length
    assert geometry_loss(depth, same, FOCAL).item() == pytest.approx(0, abs=1e-4)
    across = torch.tensor([0.0, 1.0, 0.0])[None, :, None, None].expand(1, 3, 18, 24)
    assert geometry_loss(depth, across, FOCAL).item() == pytest.approx(1, abs=1e-3)


def test_labels_count_before_predictions_and_only_depth_follows() -> None:
    wanted = torch.tensor([0.0, 0.6, 0.8])
    depth = plane(wanted, 2.0, 36, 48).requires_grad_()
    assert smooth(depth)[..., 1:-1, 1:-1].all()
    normals = torch.randn(1, 3, 36, 48, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = wanted[None, :, None, None].expand(1, 3, 36, 48)
    assert geometry_loss(depth, normals, FOCAL, labels).item() == pytest.approx(0, abs=1e-3)
    loss = geometry_loss(depth, normals, FOCAL, torch.zeros(1, 3, 36, 48))
    torch.autograd.backward([loss])
    assert loss.item() > 0.1
    assert normals.grad is None
    assert depth.grad is not None
    assert depth.grad.isfinite().all()
    assert depth.grad.abs().max() > 0


def test_steps_between_surfaces_are_left_out() -> None:
    depth = torch.full((1, 1, 8, 8), 2.0)
    depth[..., 4:] = 4.0
    facing = torch.tensor([0.0, 0.0, 1.0])[None, :, None, None].expand(1, 3, 8, 8)
    assert smooth(depth)[0, 0, 3].tolist() == [False, True, True, False, False, True, True, False]
    assert geometry_loss(depth, facing, FOCAL).item() == pytest.approx(0, abs=1e-6)


def test_following_the_loss_turns_a_wall() -> None:
    wanted = torch.tensor([0.6, 0.0, 0.8])
    slope = torch.zeros((), requires_grad=True)
    x = ((torch.arange(24) + 0.5) / 24 - 0.5).expand(1, 1, 18, 24)
    labels = wanted[None, :, None, None].expand(1, 3, 18, 24)
    optimizer = torch.optim.Adam([slope], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = geometry_loss(2 / (1 - slope * x), torch.zeros_like(labels) + 1, FOCAL, labels)
        torch.autograd.backward([loss])
        optimizer.step()
    # z = d / (n_z + n_x x / f) up to sign: a plane's inverse depth is linear, with this slope
    assert slope.item() == pytest.approx(0.6 / 0.8 / 1.1, abs=0.02)


def test_angles_are_pooled_over_labelled_pixels() -> None:
    metric = GeometryMetric()
    wanted = torch.tensor([0.6, 0.0, 0.8])
    depth = plane(wanted, 2.0)[:, 0]
    labels = torch.zeros(1, 3, 18, 24)
    labels[:, 2, :, :12] = 1  # facing, where there is a label
    turned = torch.tensor([0.8, 0.0, 0.6]).expand(1, 18, 24, 3)
    metric.update(depth, turned, labels, FOCAL)
    found = metric.compute()
    assert found["mErr/depth"] == pytest.approx(math.degrees(math.acos(0.8)), abs=0.1)
    between = math.degrees(math.acos(0.8 * 0.6 + 0.6 * 0.8))
    assert found["disagreement"] == pytest.approx(between, abs=0.1)


def test_evaluation_tells_how_two_maps_agree() -> None:
    source = build_source(SourceConfig(kind="scenes", count=2), TASKS, (96, 128), None)
    batch = collate([source[0], source[1]])
    depth, normals = batch["depth"].float(), batch["normals"].float()
    evaluation = Evaluation(TASKS)
    evaluation.update({"depth": depth[:, 0], "normals": normals.movedim(1, -1)}, batch)
    found = evaluation.compute()
    assert found["normals"]["mErr/invpt"] < 0.1
    assert found["geometry"]["mErr/depth"] == pytest.approx(found["geometry"]["disagreement"], abs=0.1)
    assert found["geometry"]["mErr/depth"] < 20
    evaluation.update(
        {"depth": depth[:, 0].flip(-1), "normals": F.normalize(normals.movedim(1, -1), dim=-1)}, batch
    )
    assert evaluation.compute()["geometry"]["mErr/depth"] > found["geometry"]["mErr/depth"]


def test_the_loss_needs_both_tasks() -> None:
    with pytest.raises(ConfigError, match=r"loss\.lambda_geometry: it needs"):
        tiny_run("loss.lambda_geometry=0.5", "~model.tasks.normals")


def test_cameras_are_no_labels() -> None:
    assert labels_at({"image": torch.zeros(1), "focal": FOCAL, "id": ["a"]}, 2) == {}
