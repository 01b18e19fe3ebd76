import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.data.trees import HALF, TASKS, wide
from training.data import AugmentConfig, Mixture, SourceConfig, build_source, validate
from training.data.scenes.camera import Array, Camera
from training.data.scenes.layout import Room, random_scene
from training.data.scenes.reader import class_id
from training.data.scenes.render import Drawing, draw, salient_thing
from training.data.scenes.shapes import Plane
from training.data.scenes.things import Scene
from training.label_spaces import LABEL_SPACES
from training.tasks import IGNORE_PROBABILITY, make_task

SIZE = (60, 80)
SEEDS = range(12)


def empty_room(pitch: float, yaw: float = 0.0) -> tuple[Scene, Drawing]:
    """A camera 1.5 m above the floor and 3 m in front of the far wall of a 4 x 2.5 x 6 m room."""
    rng = np.random.default_rng(0)
    walls = [part for part in Room(4, 2.5, 6).parts(rng) if isinstance(part.solids[0].shape, Plane)]
    position = np.array([0, 1.5, 0], np.float32)
    scene = Scene(
        Camera(position, pitch, yaw, math.radians(60), SIZE),
        tuple(walls),
        np.array([0, 2, 1], np.float32),
        0.4,
        1.0,
    )
    return scene, draw(scene, rng)


def scenes() -> Iterator[tuple[Scene, Drawing]]:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        scene = random_scene(rng, SIZE)
        yield scene, draw(scene, rng)


def back_projected(scene: Scene, depth: Array) -> Array:
    """Points [3, H, W] in the frame of normals: x right, y up, z towards the camera."""
    height, width = SIZE
    focal = width / 2 / math.tan(scene.camera.field / 2)
    x = (np.arange(width) + 0.5 - width / 2) / focal
    y = (height / 2 - np.arange(height) - 0.5) / focal
    return np.stack((x * depth, y[:, None] * depth, -depth))


def test_a_wall_faced_squarely_looks_at_the_camera() -> None:
    scene, drawing = empty_room(pitch=0)
    wall = drawing.thing == [thing.names[0] for thing in scene.things].index("wall")
    middle = wall[:, 20:60]
    assert middle.any()
    assert np.allclose(drawing.normals[:, :, 20:60][:, middle], [[0], [0], [1]], atol=1e-6)
    assert np.allclose(drawing.depth[:, 20:60][middle], 3.0, atol=1e-5)


@pytest.mark.parametrize("pitch", [-0.6, -0.2, 0.0, 0.3])
def test_floors_point_up_by_the_pitch(pitch: float) -> None:
    scene, drawing = empty_room(pitch, yaw=0.3)
    names = [thing.names[0] for thing in scene.things]
    up = np.array([0, math.cos(pitch), -math.sin(pitch)])
    for name, sign in (("floor", 1), ("ceiling", -1)):
        seen = drawing.thing == names.index(name)
        if seen.any():
            assert np.allclose(drawing.normals[:, seen], sign * up[:, None], atol=1e-6)
    assert (drawing.thing == names.index("floor")).any() == (pitch < 0)
    assert (drawing.thing == names.index("ceiling")).any() == (pitch > -0.2)


def test_depth_is_distance_along_the_optical_axis() -> None:
    scene, drawing = empty_room(pitch=-0.2, yaw=0.3)
    axes, position = scene.camera.axes, scene.camera.position
    points = position[:, None, None] + scene.camera.rays() * drawing.depth
    along = np.tensordot(axes[2], points - position[:, None, None], 1)
    assert np.allclose(along, drawing.depth, atol=1e-4)
    floor = drawing.thing == [thing.names[0] for thing in scene.things].index("floor")
    assert np.allclose(points[1][floor], 0, atol=1e-4)


def test_normals_agree_with_finite_differences_of_depth() -> None:
    checked = 0
    for scene, drawing in scenes():
        points = back_projected(scene, drawing.depth)
        across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
        upward = points[:, :-2, 1:-1] - points[:, 2:, 1:-1]
        measured = np.cross(across, upward, axis=0)
        measured /= np.linalg.norm(measured, axis=0)
        normals = drawing.normals[:, 1:-1, 1:-1]
        flat = np.ones(normals.shape[1:], bool)
        for rows in (slice(0, -2), slice(1, -1), slice(2, None)):
            for columns in (slice(0, -2), slice(1, -1), slice(2, None)):
                flat &= (np.abs(drawing.normals[:, rows, columns] - normals) < 1e-6).all(0)
                flat &= drawing.thing[rows, columns] == drawing.thing[1:-1, 1:-1]
        # Equal normals side by side can still be two parallel faces: their depths do not lie on one plane.
        second = np.abs(np.diff(1 / drawing.depth, 2, axis=1)[1:-1]) + np.abs(
            np.diff(1 / drawing.depth, 2, axis=0)[:, 1:-1]
        )
        flat &= second < 1e-5
        cosine = (measured * normals).sum(0)[flat]
        checked += cosine.size
        assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 0.5
    assert checked > 0.5 * len(SEEDS) * SIZE[0] * SIZE[1]


def test_every_normal_faces_the_camera() -> None:
    for scene, drawing in scenes():
        assert np.allclose(np.linalg.norm(drawing.normals, axis=0), 1, atol=1e-4)
        points = back_projected(scene, drawing.depth)
        assert ((drawing.normals * points).sum(0) / drawing.depth < 0.02).all()
        assert np.isfinite(drawing.depth).all()
        assert drawing.depth.min() > 0.1


def test_a_scene_is_a_full_sample() -> None:
    source = build_source(SourceConfig(kind="scenes", count=30), TASKS, SIZE, None)
    assert len(source) == 30
    people = 0
    for index in range(30):
        sample = wide(source[index])
        assert sample["id"] == f"scene_train_{index:05d}"
        assert sample["image"].shape == (3, *SIZE)
        assert sample["image"].dtype == torch.uint8
        assert (sample["depth"] > 0).all()
        nearest = sample["depth"].min()
        assert torch.allclose(sample["disparity"] * sample["depth"], nearest.expand(1, *SIZE), rtol=2 * HALF)
        assert set(sample["saliency"].unique().tolist()) <= {0.0, 1.0}
        person = sample["semseg"] == 15
        assert torch.equal(person, sample["parsing"] > 0)
        assert sample["semseg"].max() < 21
        assert sample["parsing"].max() < 8
        people += int(person.any())
    assert 10 < people < 30


def test_an_index_is_one_scene_and_splits_share_none() -> None:
    train = build_source(SourceConfig(kind="scenes", count=2), TASKS, SIZE, None)
    again = build_source(SourceConfig(kind="scenes", count=5), TASKS, SIZE, None)
    val = build_source(SourceConfig(kind="scenes", count=2, split="val"), TASKS, SIZE, None)
    for name, value in train[1].items():
        if name != "id":
            assert torch.equal(value, again[1][name])
    assert not torch.equal(train[1]["image"], val[1]["image"])
    assert not torch.equal(train[0]["image"], train[1]["image"])


def test_class_names_are_looked_up_in_the_networks_label_space() -> None:
    voc, nyu = LABEL_SPACES["voc"], LABEL_SPACES["nyu40"]
    assert class_id(voc, ("tvmonitor", "television")) == 20
    assert nyu.labels[class_id(nyu, ("tvmonitor", "television"))] == "television"
    assert class_id(voc, ("wall",)) == 0
    assert class_id(nyu, ("plush",)) == 255

    sample = build_source(SourceConfig(kind="scenes"), [make_task("semseg", "nyu40")], SIZE, None)[3]
    seen = {nyu.labels[index] for index in sample["semseg"].unique().tolist() if index != 255}
    assert {"wall", "floor"} <= seen


def test_another_label_space_is_not_read() -> None:
    config = SourceConfig(kind="scenes", tasks={"semseg": "nyu40"}, read=["semseg", "depth"])
    sample = build_source(config, TASKS, SIZE, None)[0]
    assert (sample["semseg"] == 255).all()
    assert (sample["depth"] > 0).all()
    assert (sample["normals"] == 0).all()


def test_the_salient_thing_is_a_person_where_there_is_a_large_one() -> None:
    for scene, drawing in scenes():
        chosen = salient_thing(scene, drawing)
        if chosen is None:
            continue
        assert scene.things[chosen].figure
        for index, thing in enumerate(scene.things):
            if "person" in thing.names and (drawing.thing == index).mean() > 0.2:
                assert "person" in scene.things[chosen].names
    scene, drawing = empty_room(pitch=0)
    assert salient_thing(scene, drawing) is None


def test_scenes_go_through_the_training_transforms() -> None:
    source = build_source(SourceConfig(kind="scenes", count=3), TASKS, SIZE, AugmentConfig())
    validate([source])
    assert Mixture([source]).masses[0].sum() == 3
    sample = source.sample(1, 5)
    lengths = sample["normals"].float().norm(dim=0)
    assert torch.allclose(lengths[lengths > 0], torch.tensor(1.0), atol=HALF)


def test_edges_are_the_outlines_of_things() -> None:
    tasks = [make_task("edges"), make_task("semseg", "nyu40")]
    source = build_source(SourceConfig(kind="scenes", count=1), tasks, (48, 64), None)
    edges, semseg = source[0]["edges"][0], source[0]["semseg"]
    assert set(edges.unique().tolist()) == {0.0, 1.0}
    assert edges.mean() < 0.2
    known = (semseg[1:-1, 1:-1] != 255) & (semseg[1:-1, 2:] != 255)
    changes = (semseg[1:-1, 1:-1] != semseg[1:-1, 2:]) & known
    near = torch.nn.functional.max_pool2d(edges[None], 5, 1, 2)[0, 1:-1, 1:-1]
    assert changes.any()
    assert (near[changes] == 1).all()


def test_parts_of_another_vocabulary_are_not_guessed() -> None:
    tasks = [make_task("parsing", "pascal_parts")]
    source = build_source(SourceConfig(kind="scenes", count=1), tasks, (24, 32), None)
    assert (source[0]["parsing"] == 255).all()


def test_a_task_that_the_scenes_do_not_draw_is_a_missing_label() -> None:
    """As with a task that somebody has added: the rest of the sample is as it was."""
    edges = make_task("edges")
    sky = dataclasses.replace(edges, name="sky")
    config = SourceConfig(kind="scenes", count=1)
    sample = build_source(config, (sky, make_task("depth")), (24, 32), None)[0]
    alone = build_source(config, (make_task("depth"),), (24, 32), None)[0]
    assert torch.equal(sample["depth"], alone["depth"])
    assert (sample["sky"] == IGNORE_PROBABILITY).all()


def test_a_space_of_ones_own_is_named_by_its_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("labels: [other, person]\nmappings: {voc: {classes: {person: person}, others: other}}\n")
    task = make_task("semseg", str(path))
    values = [
        build_source(SourceConfig(kind="scenes", count=4, tasks=tasks), [task], SIZE, None)[0]["semseg"]
        for tasks in ({}, {"semseg": str(path)})
    ]
    assert torch.equal(*values)
    assert set(values[0].unique().tolist()) <= {0, 1}
    assert not caplog.records
    build_source(SourceConfig(kind="scenes", tasks={"semseg": "voc"}), [task], SIZE, None)
    assert "not 'voc': no semseg in them" in caplog.text
