"""Curves of cost: what is counted is formula + causes at every point, and grows as it should."""

import math

import pytest

from datbench.eq10.curves import ComparedModules, cost_against_side, share_against_stride, sweep
from datbench.errors import UsageError
from datbench.render.figure import Figure, Series

SMALL = ComparedModules(dim=32, heads=4, groups=2, strides=(1, 2), window=3, kernel=3)


def slope(series: Series) -> float:
    """Of the last two points, in logarithms."""
    (x0, x1), (y0, y1) = series.x[-2:], series.y[-2:]
    return math.log(y1 / y0) / math.log(x1 / x0)


def by_name(figure: Figure) -> dict[str, Series]:
    return {series.name: series for series in figure.series}


def test_counted_is_the_formula_and_what_it_leaves_out() -> None:
    # 10 is no multiple of the window, 7 none of the strides and ratios
    curves = sweep(SMALL, (7, 9, 10, 24, 48))
    names = ["DMHA r=1", "DMHA r=2", "MSA", "SRA R=2", "W-MSA s=3", "NA s=3", "D-DETR K=4"]
    assert [*curves] == names
    for name, points in curves.items():
        for point in points:
            causes = sum(term.predicted - term.formula for term in point.terms)
            assert point.counted == point.by_formula + causes, (name, point.sizes.height)
            assert all(term.counted == term.predicted for term in point.terms)


def test_the_figures_of_section_3_2() -> None:
    """14x14, C=384, k=5: 147.141 MMACs by Eq. 10, 149.662 counted, 1.4 % of it offsets."""
    (dmha,), (msa,), *_ = sweep(ComparedModules(), (14,)).values()
    assert (dmha.by_formula, dmha.counted) == (147_141_120, 149_662_464)
    assert msa.counted == 4 * 196 * 384**2 + 2 * 196**2 * 384
    offsets = by_name(share_against_stride(strides=(1, 2)))["offset network"]
    assert offsets.y[0] == pytest.approx(100 * 2_032_128 / 149_662_464)
    assert offsets.y[1] == pytest.approx(100 * 508_032 / 80_767_680)


def test_how_cost_grows() -> None:
    whole, pixel, _ = cost_against_side(ComparedModules(strides=(1, 2)), (7, 14, 448, 896))
    grown = {name: slope(series) for name, series in by_name(whole).items()}
    for name in ("W-MSA s=7", "NA s=7", "D-DETR K=4"):
        assert grown[name] == pytest.approx(2, abs=1e-9), name  # as HW
    for name in ("MSA", "DMHA r=1", "DMHA r=2", "SRA R=2"):
        assert grown[name] == pytest.approx(4, abs=0.02), name  # as HW squared
    for name, series in by_name(pixel).items():
        assert slope(series) == pytest.approx(grown[name] - 2), name


def test_deformable_attention_at_stride_1_costs_what_global_attention_does() -> None:
    whole, _, left_out = cost_against_side()
    dmha, msa = by_name(whole)["DMHA r=1"], by_name(whole)["MSA"]
    for x, ours, theirs in zip(dmha.x, dmha.y, msa.y, strict=True):
        assert theirs < ours < 1.08 * theirs, x
    # 4 M HW Ns beside 2 HW Ns C: what is left out comes to 2 M / C of the formula
    shares = by_name(left_out)["DMHA r=1"].y
    assert list(shares) == sorted(shares)
    assert 5.5 < shares[-1] < 100 * 2 * 12 / 384
    assert by_name(left_out)["MSA"].y == (0,) * len(shares)


def test_shares_fall_with_the_stride() -> None:
    series = by_name(share_against_stride(SMALL, (1, 2, 4, 8), 32, 48))
    assert "offset network" in series
    for one in series.values():
        assert list(one.y) == sorted(one.y, reverse=True), one.name
    total = series.pop("all that is left out").y
    parts = [one.y for name, one in series.items() if name != "offset network"]
    assert len(parts) == 3
    assert total == pytest.approx([sum(at) for at in zip(*parts, strict=True)])


def test_maps_that_are_too_small_are_refused() -> None:
    for sides in ((), (1, 14)):
        with pytest.raises(UsageError, match="none below 2"):
            sweep(ComparedModules(), sides)
