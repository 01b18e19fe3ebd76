"""Weights of classes: given, and computed from a training mixture."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.data.trees import write_record, write_split
from training.class_weights import RareClassRule, given_weights, rare_class_weights, resolve
from training.data import Mixture, SourceConfig, build_source
from training.tasks import Task, make_task

UNION = make_task("semseg", "objects_rooms")
assert UNION.space is not None
PARTS, LABELS = UNION.space.targets.parts, UNION.space.labels


def mixture(root: Path, task: Task, sources: dict[str, list[dict[int, int]]], **settings: object) -> Mixture:
    """A source for each label space, whose images have so many pixels (768 in all) of each class."""
    built = []
    for space, images in sources.items():
        for index, counts in enumerate(images):
            ids = np.repeat(list(counts), list(counts.values())).astype(np.uint8)
            write_record(root / space, f"p{index}", {"semseg": ids.reshape(24, 32)})
        write_split(root / space, [f"p{index}" for index in range(len(images))])
        config = SourceConfig.model_validate(
            {"kind": "folder", "root": str(root / space), "tasks": {"semseg": space}, **settings}
        )
        built.append(build_source(config, [task], (12, 16), None))
    return Mixture(built)


def test_a_class_weighs_the_inverse_of_its_share_to_a_power(tmp_path: Path) -> None:
    drawn = mixture(tmp_path, UNION, {"voc": [{0: 576, 15: 192}], "nyu40": [{0: 384, 4: 384}]})
    found = rare_class_weights(UNION, drawn, RareClassRule(power=0.5, cap=100)).targets
    raw = np.array([0.75, 0.25]) ** -0.5
    expected = raw / (raw @ [0.75, 0.25])
    voc = PARTS["voc"].table
    assert found[voc[[0, 15]].tolist()].tolist() == pytest.approx(expected)
    assert found[PARTS["nyu40"].table[[0, 4]].tolist()].tolist() == pytest.approx([1, 1])
    capped = rare_class_weights(UNION, drawn, RareClassRule(power=1, cap=1.5)).targets
    assert capped[int(voc[15])] == 1.5
    assert found[:55].tolist() == [1] * 55


def test_shares_are_those_of_what_is_drawn(tmp_path: Path) -> None:
    images = [{0: 768}, {12: 768}]
    drawn = mixture(tmp_path, UNION, {"voc": images}, repeat=[("p1", 3.0)])
    found = rare_class_weights(UNION, drawn, RareClassRule(power=1)).targets
    voc = PARTS["voc"].table
    assert float(found[int(voc[0])] / found[int(voc[12])]) == pytest.approx(3)


def test_classes_of_the_network_take_the_weight_of_their_narrowest_label(tmp_path: Path) -> None:
    voc = [{0: 576, 9: 192}]  # background and chair
    nyu = [{0: 192, 4: 576}]  # wall and chair
    drawn = mixture(tmp_path, UNION, {"voc": voc, "nyu40": nyu})
    weights = rare_class_weights(UNION, drawn, RareClassRule(power=0.5))
    of_voc, of_nyu = (weights.targets[PARTS[name].table[:21].tolist()] for name in ("voc", "nyu40"))
    assert weights.classes[LABELS.index("wall")] == pytest.approx(float(of_nyu[0]), rel=1e-3)
    expected = float((of_voc[9] * of_nyu[4]).sqrt())
    assert weights.classes[LABELS.index("chair")] == pytest.approx(expected, rel=1e-3)
    assert weights.classes[LABELS.index("other")] == pytest.approx(float(of_voc[0]), rel=1e-3)
    assert weights.classes[LABELS.index("dog")] == 1


def test_given_weights_are_those_of_classes_and_the_least_of_a_set() -> None:
    values = [0.5, *np.linspace(1, 2, 54)]
    found = given_weights(UNION, values)
    assert found.classes == tuple(values)
    assert torch.allclose(found.targets[:55], torch.tensor(values, dtype=torch.float32))
    assert found.targets[int(PARTS["voc"].table[0])] == 0.5


def test_settings_are_resolved_by_task(tmp_path: Path) -> None:
    parsing = make_task("parsing", "fashion")
    drawn = mixture(tmp_path, UNION, {"voc": [{0: 576, 15: 192}]})
    found = resolve({"semseg": RareClassRule(), "parsing": (1.0,) * 8}, [UNION, parsing], drawn)
    assert len(found["semseg"].targets) == len(PARTS["voc"].members) + 1 + 40 + 55
    assert found["parsing"].targets.tolist() == [1] * 8
