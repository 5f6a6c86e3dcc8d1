"""Scores by pencil: two tiny layers, and pixels from normalised points."""

import pytest
import torch
from torch import Tensor

from datbench.points.rows import Selection, gathered
from datbench.points.sampling import Layer, everyone, landed, one, passed_on, propagated, scored
from datbench.points.sampling import spread as spread_over


def layer(
    stage: int, size: tuple[int, int], points: list[list[list[float]]], weights: Tensor
) -> Layer:
    height, width = size
    heads = weights.shape[0]
    return Layer(stage, 1, height, width, heads, False, torch.tensor(points), weights.float())


def test_a_point_gives_to_the_four_cells_that_it_reads() -> None:
    # On a map 3 wide and 2 high, x = 0.5 is cell 1.5 and y = 0 lies between the rows.
    given = landed(torch.tensor([[0.5, 0.0]]), torch.tensor([0.8]), 2, 3)
    assert given.tolist() == [
        pytest.approx([0.0, 0.2, 0.2]),
        pytest.approx([0.0, 0.2, 0.2]),
    ]
    corner = landed(torch.tensor([[1.0, -1.0]]), torch.tensor([1.0]), 2, 3)
    assert corner.tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    # Half a cell beyond the edge: half is lost.
    edge = landed(torch.tensor([[1.5, -1.0]]), torch.tensor([1.0]), 2, 3)
    assert edge.tolist() == [pytest.approx([0.0, 0.0, 0.5]), [0.0, 0.0, 0.0]]


def test_shares_are_divided_among_finer_cells() -> None:
    finer = spread_over(torch.tensor([[0.25, 0.75]]), 2, 4)
    assert finer.tolist() == [[0.0625, 0.0625, 0.1875, 0.1875]] * 2
    uneven = spread_over(torch.tensor([[0.6, 0.4]]), 1, 3)
    assert uneven.tolist() == [pytest.approx([0.3, 0.3, 0.4])]


def test_scores_come_down_two_layers() -> None:
    """The last layer, 1x2, has two points; the one before, 2x4, has two points of its own."""
    last = layer(
        4,
        (1, 2),
        [[[-1.0, 0.0], [1.0, 0.0]]],  # the left cell, and the right one
        torch.tensor([[[0.9, 0.1], [0.5, 0.5]]]),  # (1, 2 queries, 2 points)
    )
    weights = torch.zeros(1, 8, 2)
    weights[..., 0] = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0])  # left halves
    weights[..., 1] = 1 - weights[..., 0]
    before = layer(3, (2, 4), [[[-1.0, -1.0], [1.0, 1.0]]], weights)
    first, second = propagated([before, last], everyone(last))
    # (0.9 + 0.5) / 2 and (0.1 + 0.5) / 2; the left half asks for the left point alone
    assert second.scores.flatten().tolist() == pytest.approx([0.7, 0.3])
    assert first.scores.flatten().tolist() == pytest.approx([0.7, 0.3])
    first, second = propagated([before, last], one(last, 0, 0))
    assert second.scores.flatten().tolist() == pytest.approx([0.9, 0.1])
    assert first.scores.flatten().tolist() == pytest.approx([0.9, 0.1])


def test_groups_share_equally_and_heads_are_averaged() -> None:
    weights = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]], [[0.0, 1.0]], [[0.0, 1.0]]])  # 4 heads
    here = layer(1, (1, 1), [[[-1.0, 0.0], [1.0, 0.0]]] * 2, weights)
    found = scored(here, everyone(here))
    assert found.scores.mean(1).tolist() == [pytest.approx([0.75, 0.25]), [0.0, 1.0]]
    wide = Layer(1, 1, 1, 2, 4, False, here.points, weights.expand(4, 2, 2))
    assert passed_on(scored(wide, everyone(wide))).flatten().tolist() == pytest.approx(
        [0.375, 0.625]
    )


def test_deformable_detr_asks_for_the_query_alone() -> None:
    points = torch.zeros(1, 2, 1, 2)
    points[0, 1, 0] = torch.tensor([0.5, 0.5])
    own = Layer(1, 1, 1, 2, 1, True, points, torch.ones(1, 2, 1))
    found = scored(own, one(own, 0, 1))
    assert found.points.tolist() == [[[0.5, 0.5]]]
    assert found.scores.tolist() == [[[1.0]]]
    both = scored(own, everyone(own))
    assert both.scores.flatten().tolist() == [0.5, 0.5]


def test_pixels_by_hand() -> None:
    """A map of 4x2 cells over an image of 80x60: cells 20 wide and 30 high."""
    places = [[[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]]]
    here = layer(3, (2, 4), places, torch.full((1, 8, 3), 1 / 3))
    points, _ = gathered([here], Selection("groups"), 80, 60)
    found = [(p.x, p.y) for p in points]
    # The centres of the corner cells are pixels 9.5 and 69.5, 14.5 and 44.5; the middle 39.5, 29.5.
    assert found == [(9.5, 14.5), (69.5, 44.5), (39.5, 29.5)]
    assert {(p.stage, p.block, p.group, p.weight) for p in points} == {(3, 1, 1, None)}


def test_the_heaviest_first_and_each_head_its_own() -> None:
    weights = torch.tensor([[[0.2, 0.8]], [[0.6, 0.4]]])
    places = [[[-1.0, 0.0], [1.0, 0.0]], [[-1.0, 0.0], [1.0, 0.0]]]
    here = Layer(2, 3, 1, 1, 2, False, torch.tensor(places), weights)
    points, query = gathered([here], Selection("query", top=3), 10, 10)
    assert query == (4.5, 4.5)
    assert [(p.group, round(p.weight or 0, 6)) for p in points] == [(1, 0.8), (2, 0.6), (2, 0.4)]
    points, _ = gathered([here], Selection("query", head="each", top=1), 10, 10)
    assert [(p.head, p.group, round(p.weight or 0, 6)) for p in points] == [
        (1, 1, 0.8),
        (2, 2, 0.6),
    ]
    points, _ = gathered([here], Selection("query", head=2), 10, 10)
    assert [(p.head, p.group, round(p.weight or 0, 6)) for p in points] == [
        (2, 2, 0.6),
        (2, 2, 0.4),
    ]
    points, _ = gathered([here], Selection("query", group=1), 10, 10)
    assert [(p.group, round(p.weight or 0, 6)) for p in points] == [(1, 0.8), (1, 0.2)]
