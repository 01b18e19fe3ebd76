import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional

from training.data.maps import (
    DepthMap,
    DisparityMap,
    LabelMap,
    NormalsMap,
    PixelMap,
    SaliencyMap,
    map_types,
    unit,
)
from training.data.resample import Box, Turn, bilinear, masked_bilinear, nearest
from training.tasks import make_task

KINDS = [LabelMap, SaliencyMap, DisparityMap, DepthMap, NormalsMap]
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


def example(kind: type[PixelMap], height: int = 6, width: int = 8) -> PixelMap:
    generator = torch.Generator().manual_seed(0)
    if kind is LabelMap:
        return kind.of(torch.randint(0, 20, (height, width), generator=generator, dtype=torch.uint8))
    values = torch.rand((*kind.channels, height, width), generator=generator) + 0.1
    return kind.of(unit(values) if kind is NormalsMap else values)


@pytest.mark.parametrize("kind", KINDS)
def test_torchvision_functionals_reach_every_kind(kind: type[PixelMap]) -> None:
    values = example(kind)
    assert type(functional.resize(values, [3, 4])) is kind
    assert functional.resize(values, [3, 4]).shape[-2:] == (3, 4)
    assert type(functional.resized_crop(values, 1, 2, 3, 4, size=[5, 6])) is kind
    twice = functional.horizontal_flip(functional.horizontal_flip(values))
    assert torch.equal(twice.plain(), values.plain())


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_of_missing_values_stays_missing(kind: type[PixelMap]) -> None:
    missing = kind.missing((6, 8))
    values = kind.of(missing.to(torch.uint8) if kind is LabelMap else missing)
    assert not values.valid().any()
    changed = values.sampled(Box(1.5, 0, 3, 8), (12, 7)).turned(Turn(7, (12, 7), 1.0)).flipped()
    assert torch.equal(changed.plain(), kind.missing((12, 7)))


def test_resizing_to_the_same_size_changes_nothing() -> None:
    for kind in KINDS:
        values = example(kind)
        assert torch.allclose(functional.resize(values, [6, 8]).plain(), values.plain(), atol=1e-6)


def test_bilinear_agrees_with_torch() -> None:
    values = torch.rand(2, 7, 9)
    wanted = torch.nn.functional.interpolate(values[None], (13, 5), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(bilinear(values, Box(0, 0, 7, 9), (13, 5)), wanted, atol=1e-6)


def test_nearest_agrees_with_torch() -> None:
    values = torch.rand(2, 7, 9)
    wanted = torch.nn.functional.interpolate(values[None], (13, 5), mode="nearest-exact")[0]
    assert torch.equal(nearest(values, Box(0, 0, 7, 9), (13, 5)), wanted)


def test_a_crop_is_placed_to_a_fraction_of_a_pixel() -> None:
    columns = torch.arange(16.0).expand(1, 4, 16)
    crop = bilinear(columns, Box(0, 3.25, 4, 8), (4, 8))
    assert torch.allclose(crop[0, 0], torch.arange(8.0) + 3.25)


@given(source=sizes, target=sizes, data=st.data())
def test_invalid_values_never_reach_valid_ones(
    source: tuple[int, int], target: tuple[int, int], data: st.DataObject
) -> None:
    cells = source[0] * source[1]
    flags = data.draw(st.lists(st.booleans(), min_size=cells, max_size=cells))
    valid = torch.tensor(flags).view(1, *source)
    values = torch.where(valid, 2.0 + torch.rand(1, *source), torch.tensor(1e6))
    box = Box(0, 0, *source)
    sampled, kept = masked_bilinear(values, valid, box, target)
    assert torch.equal(kept, nearest(valid, box, target))
    assert ((sampled >= 2 - 1e-4) & (sampled <= 3 + 1e-4))[kept].all()


@given(source=sizes, target=sizes)
def test_resampled_normals_are_unit_or_missing(source: tuple[int, int], target: tuple[int, int]) -> None:
    vectors = unit(torch.randn(3, *source)) * (torch.rand(1, *source) > 0.3)
    sampled = NormalsMap.of(vectors).sampled(Box(0, 0, *source), target)
    length = sampled.plain().norm(dim=0)
    kept = nearest(NormalsMap.of(vectors).valid(), Box(0, 0, *source), target)[0]
    assert (length[~kept] == 0).all()
    # Opposite neighbours may average to nothing; anything else is a direction.
    assert (((length - 1).abs() < 1e-3) | (length < 1e-3))[kept].all()


def test_a_flip_mirrors_places_and_the_x_of_normals() -> None:
    left_wall = torch.tensor([0.6, 0.0, 0.8]).view(3, 1, 1).repeat(1, 2, 4)
    left_wall[:, :, 3] = torch.tensor([0.0, 0.0, 1.0])[:, None]
    flipped = NormalsMap.of(left_wall).flipped().plain()
    assert torch.allclose(flipped[:, 0, 0], torch.tensor([0.0, 0.0, 1.0]))
    assert torch.allclose(flipped[:, 0, 3], torch.tensor([-0.6, 0.0, 0.8]))
    depth = DepthMap.of(torch.arange(4.0).view(1, 1, 4))
    assert depth.flipped().plain().flatten().tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize("box", [Box(0, 0, 3, 4), Box(3, 2, 3, 4), Box(1, 0, 1.5, 8)])
def test_a_zoom_divides_metres_and_nothing_else(box: Box) -> None:
    depth = DepthMap.of(torch.full((1, 6, 8), 3.0))
    zoom = math.sqrt(6 * 8 / (box.height * box.width))
    crop = functional.resized_crop(depth, *box, size=[12, 16])
    assert torch.allclose(crop.plain(), torch.full((1, 12, 16), 3.0 / zoom))
    disparity = DisparityMap.of(torch.full((1, 6, 8), 0.5))
    assert torch.allclose(functional.resized_crop(disparity, *box, size=[12, 16]).plain(), torch.tensor(0.5))


@pytest.mark.parametrize("degrees", [-20.0, -3.0, 10.0, 90.0])
@pytest.mark.parametrize("pixel_aspect", [0.5, 1.0, 1.7])
def test_a_rotation_turns_normals_with_the_plane(degrees: float, pixel_aspect: float) -> None:
    normal = torch.tensor([0.6, 0.0, 0.8])
    turn = Turn(degrees, (31, 41), pixel_aspect)
    turned = NormalsMap.of(normal.view(3, 1, 1).repeat(1, 31, 41)).turned(turn).plain()
    angle = math.radians(degrees)
    wanted = torch.tensor([0.6 * math.cos(angle), 0.6 * math.sin(angle), 0.8])
    assert torch.allclose(turned[:, 15, 20], wanted, atol=1e-6)


def _mark(size: tuple[int, int], row: int, column: int) -> Tensor:
    ids = torch.zeros(size, dtype=torch.uint8)
    ids[row, column] = 1
    return ids


def test_a_quarter_turn_goes_counter_clockwise() -> None:
    right = LabelMap.of(_mark((9, 9), 4, 8))
    top = right.turned(Turn(90, (9, 9), 1.0)).plain()
    assert torch.equal((top == 1).nonzero(), torch.tensor([[0, 4]]))


def test_a_rotation_of_a_stretched_map_keeps_angles_of_the_image() -> None:
    # Pixels twice as wide as high: 8 columns right of the centre lie as far as 16 rows above it.
    right = LabelMap.of(_mark((41, 41), 20, 28))
    top = right.turned(Turn(90, (41, 41), 2.0)).plain()
    assert (top == 1).nonzero()[:, 1].tolist() == [20] * int((top == 1).sum())
    assert 4 in (top == 1).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_rotation_brings_in_is_missing(kind: type[PixelMap]) -> None:
    turned = example(kind, 30, 40).turned(Turn(20, (30, 40), 1.0))
    corner = turned.plain()[..., 0, 0]
    assert torch.equal(corner, kind.missing((1, 1))[..., 0, 0])
    assert (turned.valid() == 0).float().mean() < 0.4


def test_a_rotated_image_moves_with_its_maps() -> None:
    size = (40, 60)
    ids = torch.zeros(size, dtype=torch.uint8)
    ids[8:20, 30:50] = 200
    turn = Turn(-12, size, 0.8)
    image = turn.colors(ids.expand(3, *size), torch.tensor([7, 8, 9], dtype=torch.uint8))
    labels = turn.nearest(ids, 255)
    assert image[:, 0, 0].tolist() == [7, 8, 9]
    inside = labels != 255
    assert ((image[0] > 100) == (labels == 200))[inside].float().mean() > 0.97


def test_maps_of_a_network() -> None:
    types = map_types([make_task("depth"), make_task("semseg", "voc")])
    assert list(types.items()) == [("depth", DepthMap), ("disparity", DisparityMap), ("semseg", LabelMap)]
