"""All tasks over a split: batches, ranks, missing labels."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from training.metrics import Evaluation, delta_mtl
from training.metrics.evaluation import METRICS
from training.postprocess import deployment_maps
from training.tasks import TASK_NAMES, Task, entry, make_task

SPACES = {"semseg": "voc", "parsing": "fashion"}
TASKS = [make_task(name, SPACES.get(name)) for name in TASK_NAMES]
IMAGES, H, W = 5, 12, 16
MISSING = {
    "semseg": 255,
    "parsing": 255,
    "depth": 0,
    "disparity": 0,
    "normals": 0,
    "saliency": -1,
    "edges": -1,
}


def split() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Maps and labels of a split of `IMAGES` images; the third has no label at all."""
    generator = torch.Generator().manual_seed(0)
    final = {task.name: torch.randn(IMAGES, task.channels, H, W, generator=generator) for task in TASKS}
    labels = {
        "semseg": torch.randint(0, 21, (IMAGES, H, W), generator=generator),
        "parsing": torch.randint(0, 8, (IMAGES, H, W), generator=generator),
        "depth": 9 * torch.rand(IMAGES, 1, H, W, generator=generator),
        "normals": torch.randn(IMAGES, 3, H, W, generator=generator),
        "saliency": torch.rand(IMAGES, 1, H, W, generator=generator),
        "edges": (torch.rand(IMAGES, 1, H, W, generator=generator) < 0.2).float(),
        "disparity": torch.rand(IMAGES, 1, H, W, generator=generator),
    }
    for name, missing in MISSING.items():
        labels[name][2] = missing
    return deployment_maps(final, TASKS, (H, W)), labels


def batches(size: int, start: int = 0, stop: int = IMAGES) -> Iterator[tuple[dict[str, Tensor], ...]]:
    sides = split()
    for first in range(start, stop, size):
        last = min(first + size, stop)
        yield tuple({name: value[first:last] for name, value in side.items()} for side in sides)


def figures(size: int, start: int = 0, stop: int = IMAGES) -> dict[str, float]:
    evaluation = Evaluation(TASKS)
    for outputs, labels in batches(size, start, stop):
        evaluation.update(outputs, labels)
    return flat(evaluation.compute())


def flat(nested: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"{task}/{name}": value for task, values in nested.items() for name, value in values.items()}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_batch_size_changes_nothing(size: int) -> None:
    assert figures(size) == pytest.approx(figures(IMAGES), rel=1e-9)


def test_the_last_image_counts() -> None:
    whole, without_last = figures(2), figures(2, stop=IMAGES - 1)
    everywhere = {name for name in whole if name.endswith("/edgeF")}  # random maps have edges all over
    assert {name for name in whole if whole[name] == without_last[name]} <= everywhere


@pytest.mark.parametrize("task", TASKS, ids=TASK_NAMES)
def test_states_sum_over_ranks(task: Task) -> None:
    ranks = [entry(METRICS, task)(task), entry(METRICS, task)(task)]
    for rank, (start, stop) in zip(ranks, ((0, 3), (3, IMAGES)), strict=True):
        for outputs, labels in batches(2, start, stop):
            rank.update(outputs[task.name], labels[task.name])
    ranks[0].merge_state(ranks[1])  # the reduction that `compute` applies over a process group
    alone = {name: value for name, value in figures(IMAGES).items() if name.startswith(f"{task.name}/")}
    assert flat({task.name: ranks[0].compute()}) == pytest.approx(alone, rel=1e-9)


def rank_figures(rank: int, world: int, store: str, out: str) -> None:
    """One process of a group: scores its share of the split and saves what `compute` gives it."""
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=world)
    outputs, labels = split()
    evaluation = Evaluation(TASKS)
    for image in range(rank, IMAGES, world):
        evaluation.update(
            *({name: value[image][None] for name, value in side.items()} for side in (outputs, labels))
        )
    Path(f"{out}{rank}").write_text(json.dumps(flat(evaluation.compute())))
    dist.destroy_process_group()


def test_a_process_group_computes_the_figures_of_the_whole_split(tmp_path: Path) -> None:
    """Shares of three and two images, one of them without labels: none is dropped, none counts twice."""
    world = 2
    arguments = (world, str(tmp_path / "store"), str(tmp_path / "rank"))
    context = mp.get_context("spawn")
    ranks = [context.Process(target=rank_figures, args=(rank, *arguments)) for rank in range(world)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    found = [json.loads((tmp_path / f"rank{rank}").read_text()) for rank in range(world)]
    assert found[0] == pytest.approx(figures(IMAGES), rel=1e-9)
    assert found[1] == found[0]


def test_every_task_reports_its_protocols_by_name() -> None:
    assert set(figures(2)) == {
        "semseg/mIoU",
        "semseg/mIoU/all",
        "semseg/pixel_accuracy",
        "semseg/edgeF",
        "parsing/mIoU",
        "parsing/mIoU/all",
        "parsing/pixel_accuracy",
        "parsing/edgeF",
        "depth/rmse/mtcp",
        "depth/rmse/invpt",
        "depth/absrel",
        "depth/delta<1.25",
        "depth/rmse/aligned",
        "depth/absrel/aligned",
        "depth/delta<1.25/aligned",
        "depth/edgeF",
        "normals/mErr/mtcp",
        "normals/mErr/invpt",
        "normals/median",
        "normals/within_11.25",
        "normals/within_22.5",
        "normals/within_30",
        "saliency/maxF/mtcp",
        "saliency/maxF/invpt",
        "saliency/maxF/invpt_released",
        "saliency/maxF/averaged",
        "saliency/MAE",
        "saliency/MAE/edges",
        "edges/odsF/pascal",
        "edges/odsF/nyud",
        "disparity/abs/aligned",
        "disparity/absrel/aligned",
        "disparity/delta<1.25/aligned",
    }


def test_tasks_without_labels_are_absent() -> None:
    evaluation = Evaluation(TASKS)
    outputs, labels = next(batches(3))
    evaluation.update(outputs, {"depth": labels["depth"], "semseg": torch.full_like(labels["semseg"], 255)})
    assert set(evaluation.compute()) == {"depth"}
    assert Evaluation(TASKS).compute() == {}


def test_reset_forgets() -> None:
    evaluation = Evaluation(TASKS)
    evaluation.update(*next(batches(3)))
    evaluation.compute()
    evaluation.reset()
    assert evaluation.compute() == {}


def test_a_map_of_another_size_is_refused() -> None:
    outputs, labels = split()
    with pytest.raises(
        ValueError, match=r"depth: the map has \[B,H,W\] \[5, 12, 15\], its label \[5, 12, 16\]"
    ):
        Evaluation(TASKS).update(outputs | {"depth": outputs["depth"][..., :-1]}, labels)


def test_delta_mtl_is_the_mean_relative_gain() -> None:
    single = {"semseg": {"mIoU": 0.5}, "depth": {"rmse/mtcp": 0.5, "rmse/invpt": 1.0}}
    multi = {"semseg": {"mIoU": 0.6}, "depth": {"rmse/mtcp": 0.4, "rmse/invpt": 1.1}}
    tasks = [make_task("semseg", "voc"), make_task("depth")]
    assert delta_mtl(multi, single, tasks, "mtcp") == pytest.approx(20)
    assert delta_mtl(multi, single, tasks, "invpt") == pytest.approx(5)
    nothing = {"semseg": {"mIoU": 0.0}}
    assert delta_mtl(nothing, nothing, tasks[:1], "mtcp") == 0
    assert delta_mtl(multi, nothing, tasks[:1], "mtcp") == math.inf
    edges = make_task("edges")
    found = {"edges": {"odsF/pascal": 0.6, "odsF/nyud": 0.7}}
    assert delta_mtl(
        found, {"edges": {"odsF/pascal": 0.5, "odsF/nyud": 0.1}}, [edges], "mtcp"
    ) == pytest.approx(20)
    with pytest.raises(KeyError):
        delta_mtl(multi, {"semseg": {"mIoU": 0.5}}, tasks, "mtcp")
