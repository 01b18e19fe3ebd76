"""odsF on edges whose matches can be counted by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch import Tensor

from training.metrics.edges import EdgeMetric, candidates, count_matches, keep_maxima
from training.tasks import make_task

EDGES = make_task("edges")
SIZE = (60, 80)  # diagonal 100: tolerances of 0.75 and 1.1 pixels


def line(column: int, rows: slice = slice(None)) -> Tensor:
    edges = torch.zeros(SIZE)
    edges[rows, column] = 1
    return edges


def figures_of(*images: tuple[Tensor, Tensor]) -> dict[str, float]:
    metric = EdgeMetric(EDGES)
    for probability, truth in images:
        metric.update(probability[None], truth[None, None])
    return metric.compute()


def test_a_perfect_map() -> None:
    truth = line(20)
    assert figures_of((0.8 * truth, truth)) == {"odsF/pascal": 1.0, "odsF/nyud": 1.0}


def test_the_tolerance_is_a_share_of_the_diagonal() -> None:
    assert figures_of((line(21), line(20))) == {"odsF/pascal": 0.0, "odsF/nyud": 1.0}
    assert figures_of((line(22), line(20))) == {"odsF/pascal": 0.0, "odsF/nyud": 0.0}


def test_counts_are_pooled_over_images() -> None:
    upper, whole = line(20, slice(0, 30)), line(20)
    # 90 pixels predicted and 60 + 60 labelled; 30 of the first image and 60 of the second match
    found = figures_of((upper, whole), (whole, whole))
    assert found["odsF/pascal"] == pytest.approx(2 * 90 / (90 + 120))


def test_the_threshold_is_one_for_the_whole_split() -> None:
    truth, other = line(20), line(60)
    # up to .3: 120 right, 60 wrong of 120; above .3 up to .6: 60 right, none wrong
    found = figures_of((0.6 * truth + 0.3 * other, truth), (0.3 * truth, truth))
    assert found["odsF/nyud"] == pytest.approx(max(2 * 120 / (180 + 120), 2 * 60 / (60 + 120)))


def test_two_predictions_do_not_share_a_label() -> None:
    truth = line(20)
    doubled = line(19) + line(21)
    assert figures_of((doubled, truth))["odsF/nyud"] == pytest.approx(2 * 60 / (120 + 60))


def test_thick_responses_are_thinned() -> None:
    columns = torch.arange(SIZE[1], dtype=torch.float32)
    soft = (1 - (columns - 20).abs() / 6).clamp_min(0).expand(SIZE)
    assert figures_of((soft, line(20))) == {"odsF/pascal": 1.0, "odsF/nyud": 1.0}
    kept = keep_maxima(soft.double().numpy()) > 0
    assert (np.flatnonzero(kept.any(0)) == [20]).all()
    slanted = (1 - (columns[None] - 20 - torch.arange(SIZE[0])[:, None] / 2).abs() / 6).clamp_min(0)
    assert (keep_maxima(slanted.double().numpy()) > 0)[10:50].sum(1).max() <= 2


def test_ignored_pixels_do_not_count() -> None:
    truth = line(20)
    truth[:, 50:] = -1
    assert figures_of((line(20) + line(60), truth))["odsF/pascal"] == 1.0
    assert figures_of((line(20), torch.full(SIZE, -1.0))) == {}


def test_an_image_without_edges_costs_precision() -> None:
    none = torch.zeros(SIZE)
    assert figures_of((none, none)) == {"odsF/pascal": 0.0, "odsF/nyud": 0.0}
    assert figures_of((line(20), line(20)), (line(20), none))["odsF/pascal"] == pytest.approx(2 / 3)


@settings(max_examples=60)
@given(st.integers(0, 7), st.integers(0, 7), st.integers(0, 2**32 - 1))
def test_the_largest_matching_is_found(rows: int, columns: int, seed: int) -> None:
    pairs = np.random.default_rng(seed).random((rows, columns)) < 0.35

    def most(row: int, free: frozenset[int]) -> int:
        if row == rows:
            return 0
        options = [1 + most(row + 1, free - {column}) for column in free if pairs[row, column]]
        return max([most(row + 1, free), *options])

    assert count_matches(csr_array(pairs.astype(np.int8))) == most(0, frozenset(range(columns)))


def test_candidates_are_the_pixels_within_the_radius() -> None:
    rng = np.random.default_rng(0)
    edges, truth = rng.random((2, 12, 16)) < 0.2
    found = candidates(edges, truth, 0.15).toarray()
    gaps = np.argwhere(edges)[:, None] - np.argwhere(truth)[None]
    assert np.array_equal(found.astype(bool), np.hypot(*gaps.T).T <= 0.15 * 20)


def test_the_worst_case_of_matching_stays_fast() -> None:
    """Bands of candidates such as blurred edges give; an exponential search would never end."""
    rng = np.random.default_rng(1)
    edges = np.zeros((120, 160), bool)
    edges[rng.integers(0, 120, 60)] = True
    truth = np.roll(edges, 2, axis=0) & (rng.random(edges.shape) < 0.8)
    assert count_matches(candidates(edges, truth, 0.03)) == truth.sum()
