"""A task that is not of the five goes all the way: samples, heads, loss, deployed maps, metrics."""

import torch

from tests.training.tiny import tiny_model
from training.config import LossConfig
from training.data import SourceConfig, build_source, collate
from training.data.config import AugmentConfig
from training.metrics import Evaluation
from training.model import MTCP
from training.objective import Objective
from training.postprocess import deployment_maps


def test_edges_are_learned_and_scored() -> None:
    size = (64, 96)
    network = MTCP(tiny_model(tasks={"semseg": "voc", "edges": None}))
    tasks = network.tasks
    assert [(task.name, task.channels) for task in tasks] == [("semseg", 21), ("edges", 1)]
    source = build_source(SourceConfig(kind="scenes", count=2), tasks, size, AugmentConfig(rotate=1.0))
    batch = collate([source.sample(index, seed=index) for index in range(2)])
    assert set(batch["edges"].unique().tolist()) == {-1.0, 0.0, 1.0}  # rotation brought borders in

    objective = Objective(tasks, LossConfig())
    predictions = network(batch["image"])
    terms = objective(predictions, batch)
    assert terms.supervised.all()
    total = sum(terms.losses, sum(terms.aux_losses, terms.coherence_loss))
    torch.autograd.backward(total)
    for name, parameter in network.named_parameters():
        if "edges" in name and parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name

    maps = deployment_maps(predictions.final, tasks, size)
    assert maps["edges"].shape == (2, *size)
    evaluation = Evaluation(tasks)
    evaluation.update({name: values.detach() for name, values in maps.items()}, batch)
    figures = evaluation.compute()["edges"]
    assert set(figures) == {"odsF/pascal", "odsF/nyud"}
    assert 0 <= figures["odsF/pascal"] <= figures["odsF/nyud"] <= 1
    perfect = Evaluation(tasks)
    perfect.update({"edges": batch["edges"][:, 0].clamp(0, 1)}, {"edges": batch["edges"]})
    assert perfect.compute()["edges"]["odsF/pascal"] > 0.9
