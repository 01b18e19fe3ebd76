from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors

from tests.training.data.trees import SIZE, TASKS, all_maps, folder, photo, write_record, write_split
from training.data import AugmentConfig, Sample, Source, build_source
from training.data.color import ColorJitter, color_matrix
from training.data.maps import DepthMap, LabelMap, NormalsMap
from training.data.transforms import RandomView, training_transform

STILL = AugmentConfig(brightness=0, contrast=0, saturation=0, hue=0, grey=0)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    write_record(tmp_path, "a", all_maps())
    write_split(tmp_path, ["a"])
    return build_source(folder(tmp_path), TASKS, SIZE, AugmentConfig(rotate=0.5))


def same(first: Sample, second: Sample) -> bool:
    return all(
        torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
        for name, value in first.items()
    )


def test_a_seed_makes_one_sample_and_leaves_torchs_generator_alone(source: Source) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = source.sample(0, 11)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert same(first, source.sample(0, 11))
    assert not same(first, source.sample(0, 12))


def test_samples_hold_plain_contiguous_tensors(source: Source) -> None:
    for seed in range(8):
        for name, value in source.sample(0, seed).items():
            if name != "id":
                assert type(value) is torch.Tensor
                assert value.is_contiguous()
                assert value.shape[-2:] == SIZE or (name == "focal" and value.shape == (2,))


@settings(max_examples=40)
@given(seed=st.integers(0, 2**63 - 1), height=st.integers(20, 90), width=st.integers(20, 90))
def test_image_and_maps_move_together(seed: int, height: int, width: int) -> None:
    """Red says the column: a label map and a depth map that say it too must agree with it after any view."""
    size = (48, 64)
    pixels = torch.from_numpy(photo(height, width)).permute(2, 0, 1)
    small = (max(8, height // 2), max(8, width // 2))
    shares = (torch.arange(small[1]) + 0.5) / small[1]
    record = {
        "image": tv_tensors.Image(pixels),
        "ids": LabelMap.of((pixels[0] // 2).contiguous()),
        "depth": DepthMap.of(1 + shares.expand(1, *small)),
    }
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        seen = training_transform(size, STILL.model_copy(update={"rotate": 0.5}))(record)
    labelled = seen["ids"] != 255
    # Half a grey level a class, and up to a source pixel of rounding.
    slack = 2 + 2 * 255 / width
    difference = (seen["image"][0].float() - 2 * seen["ids"].float()).abs()[labelled]
    assert (difference < slack).float().mean() > 0.95
    # Depth is (1 + share) / zoom with one zoom for all pixels.
    zoom = (1 + seen["image"][0].float() / 255) / seen["depth"][0].clamp_min(0.01)
    zoom = zoom[labelled & (seen["depth"][0] > 0)]
    assert zoom.median() > 0.97
    assert zoom.median() < 2.2
    assert ((zoom / zoom.median() - 1).abs() < 0.02 + 2 / width).float().mean() > 0.9


def test_without_augmentation_an_image_is_stretched_whole(tmp_path: Path) -> None:
    write_record(tmp_path, "a", {}, photo(60, 20))
    write_split(tmp_path, ["a"])
    image = build_source(folder(tmp_path), TASKS, (24, 32), None)[0]["image"].float()
    assert torch.allclose(image[0, 5], torch.linspace(0, 255, 32), atol=8)
    assert torch.allclose(image[1, :, 5], torch.linspace(0, 255, 24), atol=8)


def test_the_whole_image_is_seen_as_often_as_asked() -> None:
    view = RandomView(SIZE, STILL.model_copy(update={"whole": 0.3, "scale": (0.5, 0.8)}))
    image = tv_tensors.Image(torch.zeros(3, 60, 80, dtype=torch.uint8))
    regions = [view.make_params([image])["region"] for _ in range(500)]
    assert abs(np.mean([region == (0, 0, 1, 1) for region in regions]) - 0.3) < 0.08


@given(seed=st.integers(0, 2**63 - 1), height=st.integers(1, 90), width=st.integers(1, 90))
def test_a_crop_lies_inside_the_image_and_keeps_its_proportions(seed: int, height: int, width: int) -> None:
    view = RandomView(SIZE, STILL.model_copy(update={"whole": 0.0, "aspect": 0.2}))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        image = tv_tensors.Image(torch.zeros(3, height, width, dtype=torch.uint8))
        top, left, rows, columns = view.make_params([image])["region"]
    assert min(top, left) >= 0
    assert top + rows <= 1 + 1e-9
    assert left + columns <= 1 + 1e-9
    # Up to the jitter and one pixel of rounding.
    assert (columns + 1 / width) / (rows - 0.5 / height) > 0.8
    assert (rows + 1 / height) / (columns - 0.5 / width) > 0.8


def test_borders_of_a_rotation_teach_nothing(tmp_path: Path) -> None:
    write_record(tmp_path, "a", all_maps())
    write_split(tmp_path, ["a"])
    augment = STILL.model_copy(update={"rotate": 1.0, "degrees": 30.0, "whole": 1.0, "flip": 0.0})
    source = build_source(folder(tmp_path), TASKS, SIZE, augment)
    sample = next(s for s in (source.sample(0, seed) for seed in range(50)) if s["semseg"][-1, -1] == 255)
    assert sample["saliency"][0, -1, -1] == -1
    assert sample["depth"][0, -1, -1] == 0
    assert sample["normals"][:, -1, -1].tolist() == [0, 0, 0]
    assert sample["image"][:, -1, -1].tolist() == [124, 116, 104]


def test_no_strength_leaves_colours_as_they_are() -> None:
    image = tv_tensors.Image(torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8))
    assert torch.equal(ColorJitter(STILL)(image), image)


def test_colours_change_within_their_strength() -> None:
    grey = tv_tensors.Image(torch.full((3, 4, 4), 100, dtype=torch.uint8))
    jitter = ColorJitter(STILL.model_copy(update={"brightness": 0.3, "hue": 0.5, "saturation": 0.5}))
    seen = torch.stack([jitter(grey).as_subclass(torch.Tensor) for _ in range(200)]).float()
    assert 69 <= seen.min() < 75
    assert 125 < seen.max() <= 131
    # Grey has no hue: it stays grey.
    assert (seen.amax(1) - seen.amin(1)).max() <= 1


def test_taking_colour_away_keeps_luma() -> None:
    image = tv_tensors.Image(torch.randint(60, 200, (3, 8, 8), dtype=torch.uint8))
    grey = ColorJitter(STILL.model_copy(update={"grey": 1.0}))(image).float()
    luma = torch.einsum("c,chw->hw", torch.tensor([0.299, 0.587, 0.114]), image.float())
    assert (grey - luma).abs().max() <= 1


def test_contrast_keeps_the_mean() -> None:
    image = tv_tensors.Image(torch.randint(60, 200, (3, 32, 32), dtype=torch.uint8))
    jitter = ColorJitter(STILL.model_copy(update={"contrast": 0.5}))
    changed = jitter.transform(image, {"brightness": 1.0, "contrast": 0.5, "saturation": 1.0, "hue": 0.0})
    assert abs(float(changed.float().std() / image.float().std()) - 0.5) < 0.02
    assert abs(float(changed.float().mean() - image.float().mean())) < 1.5


def test_a_full_turn_of_hue_is_no_turn() -> None:
    assert torch.allclose(color_matrix(1.0, 1.0), torch.eye(3), atol=1e-5)
    third = color_matrix(1.0, 1 / 3)
    assert torch.allclose(third @ third @ third, torch.eye(3), atol=0.2)


def test_a_scale_range_must_be_one() -> None:
    for scale in ((0.0, 1.0), (0.8, 0.5), (0.5, 2.5)):
        with pytest.raises(ValueError, match="scale must be a range"):
            AugmentConfig(scale=scale)


def test_a_zoom_out_has_borders_without_labels(tmp_path: Path) -> None:
    """At twice the image's sides a quarter of the view is the image, its metres doubled."""
    write_record(tmp_path, "a", all_maps())
    write_split(tmp_path, ["a"])
    augment = STILL.model_copy(
        update={"scale": (2.0, 2.0), "aspect": 0.0, "whole": 0.0, "rotate": 0.0, "flip": 0.0}
    )
    source = build_source(folder(tmp_path), TASKS, (24, 32), augment)
    for seed in range(5):
        sample = source.sample(0, seed)
        known = sample["saliency"][0] != -1
        assert known.sum() == 12 * 16
        rows, columns = (known.any(dim).nonzero()[:, 0] for dim in (1, 0))
        assert (len(rows), len(columns)) == (12, 16)
        near = torch.nn.functional.max_pool2d(known[None].float(), 5, 1, 2)[0] > 0  # resizing blends a little
        assert (sample["image"][:, ~near] == torch.tensor([124, 116, 104])[:, None]).all()
        for name, missing in (("semseg", 255), ("depth", 0), ("disparity", 0)):
            assert (sample[name].squeeze()[~known] == missing).all()
        metres = sample["depth"][sample["depth"] > 0]
        assert (metres.min().item(), metres.max().item()) == (3.0, 8.0)


FOCAL, PHOTO = 60.0, (60, 80)


def plane(normal: torch.Tensor, distance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth [H, W] of the plane n.P = -distance seen by a pinhole camera, and its rays [3, H, W]."""
    rows, columns = torch.meshgrid(torch.arange(PHOTO[0]), torch.arange(PHOTO[1]), indexing="ij")
    x, y = (columns - (PHOTO[1] - 1) / 2) / FOCAL, -(rows - (PHOTO[0] - 1) / 2) / FOCAL
    rays = torch.stack([x, y, -torch.ones_like(x)])
    return -distance / torch.einsum("c,chw->hw", normal, rays), rays


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("size", [(60, 80), (60, 60)])
def test_a_turned_plane_keeps_the_normal_that_its_depth_says(size: tuple[int, int], flip: float) -> None:
    """The plane through the depths of a turned and mirrored view has that view's mapped normal."""
    normal = torch.tensor([0.36, 0.48, 0.8])
    depth, _ = plane(normal, 2.0)
    augment = STILL.model_copy(update={"whole": 1.0, "rotate": 1.0, "degrees": 20.0, "flip": flip})
    transform = training_transform(size, augment)
    angles = []
    for seed in range(6):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            seen = transform(
                {
                    "image": tv_tensors.Image(torch.zeros(3, *PHOTO, dtype=torch.uint8)),
                    "depth": DepthMap.of(depth[None]),
                    "normals": NormalsMap.of(normal[:, None, None].repeat(1, *PHOTO)),
                }
            )
        rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
        # where the pixel's centre lies in the image, in pixels from its middle
        x = ((columns + 0.5) / size[1] - 0.5) * PHOTO[1] / FOCAL
        y = -((rows + 0.5) / size[0] - 0.5) * PHOTO[0] / FOCAL
        metres = seen["depth"].plain()[0]
        points = (metres * torch.stack([x, y, -torch.ones_like(x)]))[:, metres > 0].T.double()
        fitted = torch.linalg.svd(points - points.mean(0), full_matrices=False).Vh[2].float()
        fitted = fitted * fitted[2].sign()
        mapped = seen["normals"].plain()[:, size[0] // 2, size[1] // 2]
        assert torch.rad2deg(torch.acos((fitted * mapped).sum().clamp(-1, 1))) < 1
        angles.append(torch.atan2(mapped[1], mapped[0]))
    assert torch.stack(angles).std() > 0.05  # they were turned
