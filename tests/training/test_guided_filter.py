"""Edges of predictions that follow those of the image."""

import pytest
import torch
import torch.nn.functional as F

from training.bilinear import resized
from training.guided_filter import EPSILON, RADIUS, upsample
from training.postprocess import CANDIDATES, deployment_maps
from training.tasks import make_task

H, W = 48, 64
TASKS = [
    make_task("semseg", "objects_rooms"),
    make_task("depth"),
    make_task("normals"),
    make_task("saliency"),
]


def image(seed: int = 0) -> torch.Tensor:
    """Smooth colours with a sharp disc in another colour, uint8 [1,3,H,W]."""
    generator = torch.Generator().manual_seed(seed)
    colours = resized(torch.rand(1, 3, 3, 4, generator=generator) * 80 + 20, (H, W))
    return torch.where(disc(), 230.0, colours).byte()


def disc() -> torch.Tensor:
    """A disc as bool [1,1,H,W]."""
    y, x = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    return ((y - 22.3) ** 2 + (x - 30.1) ** 2 < 14.6**2)[None, None]


def test_what_is_linear_in_the_colours_of_windows_is_found_again() -> None:
    """A ridge regression by least squares, window by window, is the closed form of the coefficients."""
    generator = torch.Generator().manual_seed(1)
    guide = torch.rand(1, 3, 7, 9, generator=generator)
    value = torch.rand(1, 2, 7, 9, generator=generator)
    found = upsample({"x": value}, (7, 9), guide * 255)["x"]
    expected = torch.empty_like(value)
    for y in range(7):
        for x in range(9):
            rows, columns = (
                slice(max(y - RADIUS, 0), y + RADIUS + 1),
                slice(max(x - RADIUS, 0), x + RADIUS + 1),
            )
            colours, targets = (part[0, :, rows, columns].flatten(1).double() for part in (guide, value))
            centred = colours - colours.mean(1, keepdim=True)
            covariance = centred @ centred.T / colours.shape[1] + EPSILON * torch.eye(3)
            slopes = torch.linalg.solve(covariance, centred @ targets.T / colours.shape[1])
            at = guide[0, :, y, x].double() - colours.mean(1)
            expected[0, :, y, x] = (targets.mean(1) + at @ slopes).float()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_larger_epsilon_is_a_smoother_map() -> None:
    """Each prediction has its own: one so large that no colour is an edge gives the means of windows."""
    value = torch.rand(1, 2, 12, 16)
    found = upsample({"a": value, "b": value}, (12, 16), image(), {"b": 1e6})
    side = 2 * RADIUS + 1
    means = F.avg_pool2d(value, side, 1, RADIUS, count_include_pad=False)
    torch.testing.assert_close(found["b"], means, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found["a"], upsample({"a": value}, (12, 16), image())["a"])
    assert (found["a"] - value).abs().mean() < (found["b"] - value).abs().mean()


def test_constants_stay_whatever_the_image() -> None:
    value = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 12, 16)
    found = upsample({"x": value}, (H, W), image())["x"]
    torch.testing.assert_close(found, value[:, :, :1, :1].expand(1, 2, H, W), rtol=1e-4, atol=1e-4)


def test_blurred_predictions_become_as_sharp_as_the_image() -> None:
    coarse = F.avg_pool2d(F.avg_pool2d(disc().float(), 4), 3, 1, 1, count_include_pad=False)
    before = (resized(coarse, (H, W)) > 0.5) != disc()
    after = (upsample({"x": coarse}, (H, W), image())["x"] > 0.5) != disc()
    assert after.sum() < 0.5 * before.sum()


@pytest.mark.parametrize(("height", "width"), [(1, 2), (5, 7), (12, 16), (24, 32), (48, 64)])
def test_any_grid_goes_to_the_size_of_the_image(height: int, width: int) -> None:
    value = torch.rand(1, 2, height, width)
    found = upsample({"a": value, "b": value[:, :1]}, (H, W), image())
    assert list(found) == ["a", "b"]
    assert found["a"].shape == (1, 2, H, W)
    torch.testing.assert_close(found["a"][:, :1], found["b"])


def final(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = {
        task.name: 6 * resized(torch.randn(2, task.channels, 4, 5, generator=generator), (12, 16))
        for task in TASKS
    }
    return {**coarse, "depth": coarse["depth"].abs() + 0.05}


def test_refined_maps_are_of_the_same_kind() -> None:
    images = torch.cat([image(0), image(1)])
    plain = deployment_maps(final(), TASKS, (H, W))
    maps = deployment_maps(final(), TASKS, (H, W), images)
    for name, found in maps.items():
        assert (found.shape, found.dtype) == (plain[name].shape, plain[name].dtype)
        assert found.isfinite().all()
    assert 0 <= maps["saliency"].min() <= maps["saliency"].max() <= 1
    assert 0.1 <= maps["depth"].min() <= maps["depth"].max() <= 10
    torch.testing.assert_close(maps["normals"], plain["normals"])


def test_texture_is_no_relief() -> None:
    """Depth that follows a pattern on a wall a little becomes flatter, not as rough as the pattern."""
    task = make_task("depth")
    pattern = 120 + 25 * torch.rand(1, 1, 12, 16)
    images = F.interpolate(pattern.expand(1, 3, 12, 16), (H, W)).byte()
    wall = 3 + 0.004 * (pattern - 132)
    refined = deployment_maps({"depth": wall}, [task], (H, W), images)["depth"]
    plain = deployment_maps({"depth": wall}, [task], (H, W))["depth"]
    assert refined.std() < 0.5 * plain.std()


def test_images_of_a_batch_are_told_apart() -> None:
    images = torch.cat([image(0), image(1)])
    together = deployment_maps(final(), TASKS, (H, W), images)
    for index in range(2):
        alone = deployment_maps(
            {name: value[index : index + 1] for name, value in final().items()},
            TASKS, (H, W), images[index : index + 1],
        )  # fmt: skip
        torch.testing.assert_close(
            alone, {name: value[index : index + 1] for name, value in together.items()}
        )


def test_few_winning_classes_are_all_candidates() -> None:
    """Every class that wins anywhere is kept, in either image, though they are the last of 55."""
    logits = torch.zeros(2, 55, 12, 16)
    for column in range(CANDIDATES):
        logits[0, 54 - column, :, column] = 9
        logits[1, 30 - column, :, column] = 9
    flat = torch.full((2, 3, H, W), 128, dtype=torch.uint8)
    ids = deployment_maps({"semseg": logits}, TASKS[:1], (H, W), flat)["semseg"]
    assert set(ids[0].flatten().tolist()) <= {*range(39, 55)}
    assert set(ids[1].flatten().tolist()) <= {*range(15, 31)}


def test_edges_as_a_task_are_left_alone() -> None:
    task = make_task("edges")
    predictions = {"edges": torch.randn(1, 1, 12, 16)}
    plain = deployment_maps(predictions, [task], (H, W))
    torch.testing.assert_close(deployment_maps(predictions, [task], (H, W), image()), plain)
