"""The maps of a bundle out of raw predictions."""

import pytest
import torch

from training.postprocess import DEPTH_RANGE, deployment_maps
from training.tasks import make_task

TASKS = [make_task("semseg", "voc"), make_task("depth"), make_task("normals"), make_task("saliency")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_types_and_ranges(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    final = {task.name: 20 * torch.randn(2, task.channels, 4, 6, generator=generator) for task in TASKS}
    maps = deployment_maps({name: value.to(dtype) for name, value in final.items()}, TASKS, (16, 24))
    assert list(maps) == [task.name for task in TASKS]
    assert {name: (value.shape, value.dtype) for name, value in maps.items()} == {
        "semseg": ((2, 16, 24), torch.uint8),
        "depth": ((2, 16, 24), torch.float32),
        "normals": ((2, 16, 24, 3), torch.float32),
        "saliency": ((2, 16, 24), torch.float32),
    }
    assert (maps["depth"].min().item(), maps["depth"].max().item()) == pytest.approx(DEPTH_RANGE)
    torch.testing.assert_close(maps["normals"].norm(dim=-1), torch.ones(2, 16, 24))
    assert 0 <= maps["saliency"].min() <= maps["saliency"].max() <= 1


def test_resizing_comes_before_the_argmax() -> None:
    logits = torch.zeros(1, 21, 1, 2)
    logits[0, 3, 0, 0] = 3
    logits[0, 7, 0, 1] = 1
    labels = deployment_maps({"semseg": logits}, TASKS[:1], (1, 8))["semseg"]
    # class 3 falls from 3 to 0 and class 7 rises from 0 to 1 between the centres at pixels 1.5 and 5.5:
    # they cross three quarters of the way, at pixel 4.5
    assert labels[0, 0].tolist() == [3, 3, 3, 3, 3, 7, 7, 7]


def test_a_zero_normal_stays_finite() -> None:
    maps = deployment_maps({"normals": torch.zeros(1, 3, 2, 2)}, [make_task("normals")], (2, 2))
    assert maps["normals"].isfinite().all()
