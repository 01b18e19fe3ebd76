"""Edges of maps against edges of labels, on maps whose edges are known."""

import pytest
import torch
from torch import Tensor

from training.metrics.boundaries import depth_edges, edge_counts, edge_f, label_edges, near
from training.metrics.depth import DepthMetric
from training.metrics.labels import LabelMetric
from training.metrics.probability import ProbabilityMetric
from training.tasks import make_task

SIZE = (30, 40)
ALL = torch.ones(1, *SIZE, dtype=torch.bool)


def halves(column: int, left: float = 0, right: float = 1) -> Tensor:
    """[1,H,W] with one value left of a column and another from it on."""
    values = torch.full((1, *SIZE), left)
    values[..., column:] = right
    return values


def test_an_edge_is_one_pixel_wide_and_stops_where_labels_do() -> None:
    edges = label_edges(halves(20), ALL)
    assert edges.sum() == SIZE[0]
    assert edges[0, :, 19].all()
    valid = ALL.clone()
    valid[:, :, 20] = False
    assert not label_edges(halves(20), valid).any()


@pytest.mark.parametrize(("shift", "score"), [(0, 1.0), (3, 1.0), (4, 0.0)])
def test_edges_match_within_three_pixels(shift: int, score: float) -> None:
    truth, found = label_edges(halves(20), ALL), label_edges(halves(20 + shift), ALL)
    assert edge_f(edge_counts(found, truth, ALL)) == score


def test_precision_and_recall_are_pooled() -> None:
    truth = label_edges(halves(20), ALL)
    found = truth | label_edges(halves(5), ALL)  # one edge too many: precision 1/2, recall 1
    counts = edge_counts(found, truth, ALL)
    assert edge_f(counts) == pytest.approx(2 / 3)
    assert edge_f(counts + edge_counts(truth, truth, ALL)) == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))
    assert edge_f(edge_counts(truth, ~ALL, ALL)) is None
    assert edge_f(edge_counts(~ALL, truth, ALL)) == 0


def test_edges_where_nobody_labelled_are_nobodys_fault() -> None:
    valid = ALL.clone()
    valid[:, :, :15] = False
    truth = label_edges(halves(25), valid)
    found = label_edges(halves(25), ALL) | label_edges(halves(5), ALL) | label_edges(halves(17), ALL)
    assert edge_f(edge_counts(found, truth, valid)) == 1


def test_depth_has_edges_where_it_jumps_not_where_it_slopes() -> None:
    assert depth_edges(halves(20, 2.0, 2.5), ALL).any()
    assert not depth_edges(halves(20, 2.0, 2.2), ALL).any()
    slope = torch.linspace(4, 6, SIZE[1]).expand(1, *SIZE)
    assert not depth_edges(slope, ALL).any()


def test_pixels_near_a_mask() -> None:
    mask = torch.zeros(1, *SIZE, dtype=torch.bool)
    mask[0, 10, 10] = True
    assert near(mask, 2).sum() == 25


def test_labels_depth_and_saliency_report_it() -> None:
    labels = LabelMetric(make_task("semseg", "voc"))
    labels.update(halves(22).byte(), halves(20).byte())
    assert labels.compute()["edgeF"] == 1
    labels.update(halves(30).byte(), halves(20).byte())
    assert labels.compute()["edgeF"] == pytest.approx(0.5)
    depth = DepthMetric(make_task("depth"))
    depth.update(halves(21, 2, 4), halves(20, 2, 4)[:, None])
    assert depth.compute()["edgeF"] == 1
    depth.update(torch.full((1, *SIZE), 3.0), halves(20, 2, 4)[:, None])
    assert depth.compute()["edgeF"] == pytest.approx(2 / 3)
    saliency = ProbabilityMetric(make_task("saliency"))
    saliency.update(halves(20, 0.25, 1.0), halves(20)[:, None])
    # six of the eleven columns around the outline are dark and a quarter off
    assert saliency.compute()["MAE/edges"] == pytest.approx(0.25 * 6 / 11)


def test_maps_of_one_class_have_no_edge_to_score() -> None:
    metric = LabelMetric(make_task("semseg", "voc"))
    metric.update(halves(20).byte(), torch.zeros(1, *SIZE, dtype=torch.uint8))
    assert "edgeF" not in metric.compute()
