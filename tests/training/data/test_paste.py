from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tests.training.data.trees import SIZE, TASKS, all_maps, folder, write_record, write_split
from training.data import (
    AugmentConfig,
    Mixture,
    MixtureSampler,
    Paste,
    PasteConfig,
    Sample,
    SampleKey,
    Source,
    build_source,
    collate,
)
from training.tasks import make_task

PERSON, DOG, SKY = 15, 12, 0


def sample_of(semseg: int, **values: float) -> Sample:
    """A sample of one value everywhere in each of its maps; ``semseg`` also colours the image."""
    full = {"parsing": 1, "saliency": 1.0, "depth": 2.0, "disparity": 0.5, "normals": 1.0, **values}
    return {
        "id": str(semseg),
        "image": torch.full((3, *SIZE), semseg, dtype=torch.uint8),
        "focal": torch.ones(2),
        "semseg": torch.full(SIZE, semseg, dtype=torch.uint8),
        "parsing": torch.full(SIZE, full["parsing"], dtype=torch.uint8),
        **{
            name: torch.full((channels, *SIZE), full[name], dtype=torch.float16)
            for name, channels in (("saliency", 1), ("depth", 1), ("disparity", 1), ("normals", 3))
        },
    }


def paste(*classes: str, **settings: Any) -> Paste:
    return Paste(PasteConfig(probability=0.5, classes=classes, **settings), TASKS)


def test_objects_of_the_donor_cover_the_sample_and_nothing_else_does() -> None:
    sample, donor = sample_of(SKY), sample_of(SKY, parsing=3)
    objects = torch.zeros(SIZE, dtype=torch.bool)
    objects[3:7, 4:9] = True
    donor["semseg"][objects] = DOG
    donor["semseg"][0] = PERSON  # not to be pasted
    donor["image"][:, objects] = 200
    before = {name: value.clone() for name, value in sample.items() if isinstance(value, Tensor)}
    pasted = paste("dog")(sample, donor)
    assert pasted["id"] == sample["id"]
    assert torch.equal(pasted["semseg"], objects * DOG)
    assert torch.equal(pasted["parsing"], torch.where(objects, 3, 1))
    assert torch.equal(pasted["image"], (objects * 200).expand(3, *SIZE))
    for name, value in (("depth", 2.0), ("disparity", 0.5), ("normals", 1.0)):
        assert torch.equal(pasted[name], (~objects * value).expand(pasted[name].shape))
    assert (pasted["saliency"] == -1).all()
    for name, value in pasted.items():
        if isinstance(value, Tensor):
            assert (value.dtype, value.shape) == (sample[name].dtype, sample[name].shape)
            assert torch.equal(sample[name], before[name])


def test_a_donor_without_objects_changes_nothing() -> None:
    sample, donor = sample_of(SKY), sample_of(PERSON)
    donor["semseg"][:4] = 255
    assert paste("dog")(sample, donor) is sample


def test_what_a_label_leaves_open_is_not_pasted() -> None:
    tasks = (make_task("semseg", "objects_rooms"),)
    space = tasks[0].space
    assert space is not None
    voc = space.targets.parts["voc"].table
    donor = {"image": torch.ones(3, 1, 3, dtype=torch.uint8), "semseg": torch.from_numpy(voc[[[0, 12, 255]]])}
    sample = {
        "image": torch.zeros(3, 1, 3, dtype=torch.uint8),
        "semseg": torch.zeros(1, 3, dtype=torch.uint8),
    }
    config = PasteConfig(probability=1.0, classes=("dog", "wall"))
    pasted = Paste(config, tasks)(sample, donor)
    assert pasted["image"].tolist() == [[[0, 1, 0]]] * 3
    assert pasted["semseg"].tolist() == [[0, int(voc[12]), 0]]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    ids = [f"a{index}" for index in range(12)]
    for name in ids:
        write_record(tmp_path, name, all_maps())
    write_split(tmp_path, ids)
    augment = AugmentConfig(paste=PasteConfig(probability=0.5, classes=("person",)))
    return build_source(folder(tmp_path), TASKS, SIZE, augment)


def keys(source: Source, share: float, epoch: int = 0) -> list[SampleKey]:
    sampler = MixtureSampler(Mixture([source]), 4, 4, 200, paste=share)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_a_share_of_the_samples_has_a_donor_and_all_are_drawn_as_without(source: Source) -> None:
    plain, pasted = keys(source, 0.0), keys(source, 0.4)
    assert [(key.source, key.index, key.seed) for key in pasted] == [
        (key.source, key.index, key.seed) for key in plain
    ]
    assert all(key.donor is None for key in plain)
    donors = [key.donor for key in pasted if key.donor is not None]
    assert 50 <= len(donors) <= 110  # 80 expected, deviation 7
    assert all(donor.donor is None for donor in donors)
    assert not {donor.seed for donor in donors} & {key.seed for key in plain}
    assert keys(source, 0.4) == pasted != keys(source, 0.4, epoch=1)
    assert all(key.donor is not None for key in keys(source, 1.0))


def test_a_loader_gives_the_sample_with_its_donors_objects(source: Source) -> None:
    mixture = Mixture([source])
    drawn = keys(source, 0.5)[:12]
    loader = DataLoader(mixture, 4, sampler=drawn, num_workers=1, collate_fn=collate)
    images = torch.cat([batch["image"] for batch in loader])
    for key, image in zip(drawn, images, strict=True):
        sample = source.sample(key.index, key.seed)
        if key.donor is not None:
            donor = source.sample(key.donor.index, key.donor.seed)
            person = donor["semseg"] == PERSON
            sample["image"] = torch.where(person, donor["image"], sample["image"])
        assert torch.equal(image, sample["image"])


def test_what_cannot_be_pasted_is_told() -> None:
    with pytest.raises(ValueError, match="semseg has no class 'unicorn'; it has background, aeroplane"):
        paste("dog", "unicorn")
    with pytest.raises(ValueError, match="the network has no task 'parsing'"):
        Paste(PasteConfig(probability=0.5, task="parsing", classes=("hair",)), TASKS[:1])
    with pytest.raises(ValueError, match="at least 1 item"):
        paste()
