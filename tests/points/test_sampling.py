"""What is recorded is what ran: positions, and weights that make the mixer's output."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import datbench
from benchmarks.published_way import goldens
from benchmarks.published_way.deformable2022 import DeformableAttention as Published
from datbench.models.config import Deformable, DeformableDetr, Pyramid, Stage, Window
from datbench.models.mixers.deformable import DeformableAttention
from datbench.models.mixers.deformable_detr import DeformableDetrAttention
from datbench.models.pyramid import PyramidBackbone
from datbench.points.rows import Selection, gathered
from datbench.points.sampling import (
    Layer,
    bytes_to_record,
    everyone,
    landed,
    layers,
    one,
    passed_on,
    places,
    propagated,
    scored,
)
from datbench.points.sampling import spread as spread_over


def tiny(*mixers: Deformable | DeformableDetr, dim: int = 24, heads: int = 6) -> PyramidBackbone:
    """Windows, and these in stage 2."""
    near = (Window(7),)
    pyramid = Pyramid(
        stages=(
            Stage(12, 3, near),
            Stage(dim, heads, (*near, *mixers)),
            Stage(24, 3, near),
            Stage(24, 3, near),
        ),
        image_size=64,
        classes=5,
    )
    return PyramidBackbone(pyramid).eval()


IMAGE = torch.linspace(-1, 1, 3 * 64 * 96).sin().view(1, 3, 64, 96)


def watched(model: PyramidBackbone, mixer: nn.Module) -> tuple[Layer, Tensor, Tensor]:
    """The only deformable block of a model that was run, with its mixer's input and output."""
    kept: list[Tensor] = []
    mixer.register_forward_hook(lambda module, args, out: kept.extend((args[0], out)))
    (layer,) = layers(model, IMAGE)
    assert layer.weights is not None
    torch.testing.assert_close(layer.weights.sum(-1), torch.ones(6, 96))
    return layer, kept[0], kept[1]


def test_without_offsets_points_are_the_grid_by_hand() -> None:
    model = tiny(Deformable(groups=3, kernel=3))
    mixer = places(model)[0][2]
    assert isinstance(mixer, DeformableAttention)
    nn.init.zeros_(mixer.offset_network.out.weight)
    (layer,) = layers(model, IMAGE)
    assert (layer.stage, layer.block) == (2, 2)
    assert (layer.height, layer.width, layer.groups) == (8, 12, 3)
    assert layer.points.shape == (3, 96, 2)
    for group in range(3):
        # 2022: (i + 0.5) / n * 2 - 1, as (x, y), rows first
        assert layer.points[group, 0].tolist() == pytest.approx([-11 / 12, -7 / 8])
        assert layer.points[group, 1].tolist() == pytest.approx([-9 / 12, -7 / 8])
        assert layer.points[group, 12].tolist() == pytest.approx([-11 / 12, -5 / 8])
        assert layer.points[group, 95].tolist() == pytest.approx([11 / 12, 7 / 8])


@pytest.mark.parametrize("bias", ["relative", "none"])
@pytest.mark.parametrize("code", [2022, 2023])
def test_weights_are_softmax_over_keys_and_make_the_output(bias: str, code: int) -> None:
    model = tiny(Deformable(groups=2, kernel=3, stride=2, bias=bias, code=code))  # type: ignore[arg-type]
    mixer = places(model)[0][2]
    assert isinstance(mixer, DeformableAttention)
    layer, x, out = watched(model, mixer)
    assert layer.weights is not None
    assert layer.weights.shape == (6, 96, 24)
    # The points sampled by hand, group by group, then values weighed by what was recorded.
    maps = x.permute(0, 3, 1, 2).reshape(2, 12, 8, 12)  # (G, C / G, H, W)
    sampled = torch.nn.functional.grid_sample(maps, layer.points[:, None], align_corners=True)
    value = mixer.value(sampled.reshape(24, 24).t())  # (Ns, C)
    value = value.view(24, 6, 4).permute(1, 0, 2)  # (M, Ns, d)
    y = (layer.weights @ value).permute(1, 0, 2).reshape(1, 8, 12, 24)
    torch.testing.assert_close(mixer.out(y), out, atol=1e-5, rtol=1e-4)


def test_deformable_detr_weights_make_the_output() -> None:
    model = tiny(DeformableDetr(points=4))
    mixer = places(model)[0][2]
    assert isinstance(mixer, DeformableDetrAttention)
    for parameter in (mixer.offsets.weight, mixer.weights.weight):
        nn.init.normal_(parameter, std=0.3)
    layer, x, out = watched(model, mixer)
    assert layer.own
    assert layer.points.shape == (6, 96, 4, 2)
    assert layer.weights is not None
    value = mixer.value(x).view(96, 6, 4).permute(1, 2, 0).reshape(6, 4, 8, 12)  # (M, d, H, W)
    sampled = torch.nn.functional.grid_sample(value, layer.points, align_corners=True)
    y = (sampled * layer.weights[:, None]).sum(-1)  # (M, d, H W)
    y = y.reshape(24, 96).t().reshape(1, 8, 12, 24)
    torch.testing.assert_close(mixer.out(y), out, atol=1e-5, rtol=1e-4)


def test_points_are_those_of_the_published_way(tmp_path: Path) -> None:
    """Of every deformable block of DAT-T, with weights that move points far."""
    theirs = goldens.build("dat_t").eval()
    for name, parameter in theirs.named_parameters():
        if "conv_offset.3" in name:
            nn.init.normal_(parameter, std=1.0)
    expected: list[Tensor] = []

    def keep(module: Published, args: tuple[Tensor, ...]) -> None:
        points = module.sampling_points(module.proj_q(args[0]))  # (G, Hk, Wk, 2), (y, x)
        expected.append(points.flip(-1).flatten(1, 2))

    for module in theirs.modules():
        if isinstance(module, Published):
            module.register_forward_pre_hook(keep)
    ours = datbench.create_model("dat_t", attention="sdpa").eval()
    torch.save({"model": theirs.state_dict()}, tmp_path / "weights.pth")
    datbench.load_checkpoint(ours, tmp_path / "weights.pth")
    image = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        theirs(image)
    found = layers(ours, image)
    assert [(layer.stage, layer.block) for layer in found] == [(3, 2), (3, 4), (3, 6), (4, 2)]
    for layer, points in zip(found, expected, strict=True):
        torch.testing.assert_close(layer.points, points, atol=1e-4, rtol=0)
        grid = points.mean(0, keepdim=True)
        assert (points - grid).abs().max() > 0.02  # the groups differ: points did move
    assert all(mixer.attention == "sdpa" for _, _, mixer in places(ours))


def test_the_model_is_as_it_was() -> None:
    model = tiny(Deformable(groups=3, kernel=3))
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    layers(model, IMAGE, weights=[])
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    (layer,) = layers(model, IMAGE, weights=[])
    assert layer.weights is None


def test_a_variant_without_offsets_has_no_place() -> None:
    assert places(tiny(Deformable(groups=3, kernel=3, offsets=False))) == []


def test_bytes_hold_what_is_kept() -> None:
    """Two blocks' attention, and one of them in float64; one block's where one is wanted."""
    model = tiny(Deformable(groups=3, kernel=3), Deformable(groups=3, kernel=3)).to("meta")
    image = torch.empty(1, 3, 512, 512, device="meta")
    cells = 64 * 64
    each = 4 * 6 * cells * cells  # heads, queries, keys
    found = layers(model, image)
    assert sum(layer.weights.nbytes for layer in found if layer.weights is not None) == 2 * each
    both = bytes_to_record(model, image)
    only = bytes_to_record(model, image, [(2, 3)])
    assert both > 4 * each
    assert each < only < both
    assert {mixer.attention for mixer in model.modules() if hasattr(mixer, "attention")} == {
        "eager"
    }


# Scores by pencil: two tiny layers, and pixels from normalised points.


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

    def heaviest(**wanted: Any) -> list[tuple[int | None, int, float]]:
        points, query = gathered([here], Selection("query", **wanted), 10, 10)
        assert query == (4.5, 4.5)
        return [(p.head, p.group, round(p.weight or 0, 6)) for p in points]

    assert heaviest(top=3) == [(None, 1, 0.8), (None, 2, 0.6), (None, 2, 0.4)]
    assert heaviest(head="each", top=1) == [(1, 1, 0.8), (2, 2, 0.6)]
    assert heaviest(head=2) == [(2, 2, 0.6), (2, 2, 0.4)]
    assert heaviest(group=1) == [(None, 1, 0.8), (None, 1, 0.2)]
