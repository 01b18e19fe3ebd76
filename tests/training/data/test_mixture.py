from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tests.training.data.trees import SIZE, TASKS, all_maps, folder, write_record, write_split
from training.data import (
    AugmentConfig,
    Mixture,
    MixtureSampler,
    Source,
    SourceError,
    build_source,
    collate,
)


def make_source(root: Path, ids: list[str], **settings: Any) -> Source:
    if not root.exists():
        for name in ids:
            write_record(root, name, all_maps())
        write_split(root, ids)
    return build_source(folder(root, **settings), TASKS, SIZE, AugmentConfig())


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Source, Source]:
    return (
        make_source(tmp_path / "one", [f"a{index}" for index in range(12)]),
        make_source(tmp_path / "two", [f"b{index}" for index in range(4)], weight=2.0),
    )


def test_a_plain_epoch_draws_every_image_once_and_weighted_ones_by_their_weight(
    sources: tuple[Source, Source],
) -> None:
    keys = list(MixtureSampler(Mixture(sources), seed=0, batch_size=4))
    assert len(keys) == 12 + 2 * 4
    drawn = Counter((key.source, key.index) for key in keys)
    assert drawn == {**{(0, index): 1 for index in range(12)}, **{(1, index): 2 for index in range(4)}}
    assert len({key.seed for key in keys}) == len(keys)


def test_the_order_depends_on_seed_and_epoch_only(sources: tuple[Source, Source]) -> None:
    mixture = Mixture(sources)
    sampler = MixtureSampler(mixture, seed=5, batch_size=4)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    again = MixtureSampler(mixture, seed=5, batch_size=4)
    again.set_epoch(1)
    assert list(again) == second
    assert list(MixtureSampler(mixture, seed=6, batch_size=4)) != first


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(start=st.integers(0, 6), epoch=st.integers(0, 3))
def test_resuming_gives_the_tail(sources: tuple[Source, Source], start: int, epoch: int) -> None:
    sampler = MixtureSampler(Mixture(sources), seed=1, batch_size=4)
    sampler.set_epoch(epoch)
    full = list(sampler)
    sampler.set_epoch(epoch, start)
    assert list(sampler) == full[4 * start :]
    assert len(sampler) == len(full[4 * start :])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(weight=st.floats(0.1, 10), samples=st.integers(1, 300), seed=st.integers(0, 100))
def test_shares_follow_the_weights(
    sources: tuple[Source, Source], weight: float, samples: int, seed: int
) -> None:
    first, second = sources
    heavy = Source(
        second.config.model_copy(update={"weight": weight}), second.reader, TASKS, SIZE, AugmentConfig()
    )
    keys = list(MixtureSampler(Mixture([first, heavy]), seed, batch_size=4, samples_per_epoch=samples))
    assert len(keys) == samples
    expected = samples * 12 / (12 + 4 * weight)
    assert abs(sum(key.source == 0 for key in keys) - expected) < 1
    for source, length in ((0, 12), (1, 4)):
        counts = Counter(key.index for key in keys if key.source == source)
        assert (
            max(counts[index] for index in range(length)) - min(counts[index] for index in range(length)) <= 1
        )


def test_shares_are_kept_in_every_stretch_of_an_epoch(sources: tuple[Source, Source]) -> None:
    sampler = MixtureSampler(Mixture(sources), seed=0, batch_size=10, samples_per_epoch=1000)
    drawn = np.array([key.source for key in sampler]).reshape(10, 100)
    assert np.abs((drawn == 0).sum(1) - 60).max() <= 3


def test_short_epochs_cover_a_source_evenly(sources: tuple[Source, Source]) -> None:
    sampler = MixtureSampler(Mixture(sources[:1]), seed=3, batch_size=1, samples_per_epoch=5)
    drawn: Counter[int] = Counter()
    for epoch in range(24):
        sampler.set_epoch(epoch)
        drawn.update(key.index for key in sampler)
        expected = (epoch + 1) * 5 / 12
        assert all(abs(drawn[index] - expected) < 2 for index in range(12))


def test_repeat_factors_count_by_prefix(tmp_path: Path) -> None:
    source = make_source(tmp_path / "one", ["a1", "a2", "b1", "c1"], repeat=[("a", 3.0), ("b", 0.0)])
    drawn = Counter(key.index for key in MixtureSampler(Mixture([source]), seed=0, batch_size=1))
    assert drawn == {0: 3, 1: 3, 3: 1}
    with pytest.raises(SourceError, match="no id starts with the repeat prefix 'z'"):
        Mixture([make_source(tmp_path / "one", [], repeat=[("z", 1.0)])])


def test_an_empty_mixture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="mixture is empty"):
        Mixture([])
    with pytest.raises(SourceError, match="mixture is empty"):
        Mixture([make_source(tmp_path / "one", ["a"], weight=0.0)])


def test_batches_stack_maps_and_list_ids(sources: tuple[Source, Source]) -> None:
    mixture = Mixture(sources)
    keys = list(MixtureSampler(mixture, seed=0, batch_size=3))[:3]
    batch = collate([mixture[key] for key in keys])
    assert batch["id"] == [mixture.sources[key.source].reader.ids[key.index] for key in keys]
    assert batch["image"].shape == (3, 3, *SIZE)
    assert batch["semseg"].shape == (3, *SIZE)
    assert batch["normals"].shape == (3, 3, *SIZE)
    assert len(mixture) == 16


def test_the_number_of_workers_changes_nothing(sources: tuple[Source, Source]) -> None:
    mixture = Mixture(sources)
    batches = []
    for workers in (0, 2):
        torch.manual_seed(workers)
        sampler = MixtureSampler(mixture, seed=2, batch_size=4)
        loader = DataLoader(mixture, 4, sampler=sampler, num_workers=workers, collate_fn=collate)
        batches.append(list(loader))
    assert len(batches[0]) == 5
    for alone, together in zip(*batches, strict=True):
        assert alone["id"] == together["id"]
        for name in set(alone) - {"id"}:
            assert torch.equal(alone[name], together[name]), name
