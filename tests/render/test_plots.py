"""Plots: every name and unit is there as text, nothing is too wide, the same bytes every time."""

import pickle
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datbench.eq10.records import FormulaTerm, ModuleTerms, Sizes
from datbench.eq10.view import stacks
from datbench.errors import LibraryError, UsageError
from datbench.render.figure import Bars, Figure, FigurePart, Series
from datbench.render.terminal import FILLS, LEAST_WIDTH, LINE, MARKERS, to_terminal
from datbench.render.vega import to_bytes

FIGURE = Figure(
    "Cost against side",
    "side (pixels)",
    "cost (GMACs)",
    (
        Series("global", (7, 14, 28), (0.5, 8.0, 130.0), (0.5, 7.5, 120.0)),
        Series("W-MSA $s=7$", (7, 14, 28), (0.25, 1.0, 4.0)),
        Series("NA", (7, 14, 28), (0.25, 1.0, 4.0)),
    ),
    log_x=True,
    log_y=True,
    notes=("Markers: counted.",),
)


def module(resolution: str, kind: str, offsets: int, left_out: int) -> ModuleTerms:
    terms = (
        FormulaTerm("projections", "4 HW C²", 600, 600, 600),
        FormulaTerm("offset network", "", offsets, offsets, offsets),
        FormulaTerm("sampling", "4 Ns C", 0, left_out, left_out, "the formula leaves it out"),
    )
    terms = tuple(term for term in terms if term.counted)
    counted = sum(term.counted for term in terms)
    return ModuleTerms(
        "dat_t", resolution, "stages.2", 3, kind, "", Sizes(1, 1, 1, 1, 1), terms, counted, 600
    )


MODULES = [
    module("224x224", "W-MSA", 0, 0),
    module("224x224", "SW-MSA", 0, 0),
    module("224x224", "DMHA", 300, 100),
    module("1280x800", "W-MSA", 0, 0),
    module("1280x800", "DMHA", 200, 200),
]
BARS = stacks(MODULES)


def test_stacks_are_of_what_was_counted_and_by_module() -> None:
    assert BARS.names == (
        "stage 3, W-MSA + SW-MSA, 224x224",
        "stage 3, W-MSA, 1280x800",
        "stage 3, DMHA, 224x224",
        "stage 3, DMHA, 1280x800",
    )
    assert [(part.name, part.amounts, part.extra) for part in BARS.parts] == [
        ("projections", (600, 600, 600, 600), False),
        ("offset network", (0, 0, 300, 200), False),
        ("sampling", (0, 0, 100, 200), True),
    ]
    assert BARS.shares(2) == (0.6, 0.3, 0.1)


def words(content: bytes) -> str:
    """What an SVG says, as text."""
    root = ElementTree.fromstring(content)  # our own file
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return "\n".join("".join(text.itertext()) for text in root.iter() if text.tag.endswith("text"))


def test_an_svg_holds_names_and_units_as_text() -> None:
    pytest.importorskip("vl_convert")
    text = words(to_bytes([FIGURE, BARS], ".svg")).splitlines()
    for expected in (
        *(FIGURE.title, FIGURE.x_label, FIGURE.y_label, *FIGURE.notes),
        *(series.name for series in FIGURE.series),
        *("projections", "offset network", "sampling (left out)", "share of the MACs"),
        *map(BARS.label, range(4)),
        *("7", "14", "28", "10", "100"),
    ):
        assert text.count(expected) >= 1, expected


DRAW = """
import pickle, sys
from pathlib import Path
from datbench.render.terminal import to_terminal
from datbench.render.vega import to_bytes
plots = pickle.loads(Path(sys.argv[1]).read_bytes())
for suffix in (".svg", ".PNG"):
    Path(sys.argv[1] + suffix).write_bytes(to_bytes(plots, suffix))
assert "torch" not in sys.modules
"""


def test_every_process_draws_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("vl_convert")
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    (tmp_path / "there").write_bytes(pickle.dumps([FIGURE, BARS]))
    command = [sys.executable, "-c", DRAW, str(tmp_path / "there")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    for suffix, signature in ((".svg", b"<svg"), (".PNG", b"\x89PNG")):
        here = to_bytes([FIGURE, BARS], suffix)
        assert here.startswith(signature)
        assert here == (tmp_path / f"there{suffix}").read_bytes()


def test_what_cannot_be_drawn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in (".pdf", ""):
        with pytest.raises(UsageError, match=r"\.png or \.svg"):
            to_bytes([FIGURE], suffix)
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(LibraryError, match=r"pip install vl-convert-python"):
        to_bytes([FIGURE], ".svg")
    assert "global" in to_terminal(FIGURE)  # which needs no library
    with pytest.raises(ValueError, match="no place for 0"):
        Figure("t", "x", "y", (Series("a", (1,), (0,)),), log_y=True)
    with pytest.raises(ValueError, match="as many y as x"):
        Series("a", (1, 2), (1,))
    with pytest.raises(ValueError, match="no shares"):
        Bars("t", ("a",), (FigurePart("p", (0,)),), "MAC")


@pytest.mark.parametrize("width", [40, 60, 100, 10])
def test_a_terminal_gets_the_plot_and_a_legend(width: int) -> None:
    text = to_terminal(FIGURE, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= max(width, LEAST_WIDTH)
    assert all(line == line.rstrip() for line in lines)
    assert "\x1b" not in text
    assert "cost (GMACs)" in lines
    assert "side (pixels)" in [line.strip() for line in lines]
    assert f"{MARKERS[0]} global       0.5 .. 130" in lines
    assert f"{MARKERS[1]} W-MSA $s=7$  0.25 .. 4" in lines
    assert f"{MARKERS[2]} NA           0.25 .. 4 (behind others)" in lines
    plot = [line for line in lines if set("│┤") & set(line)]
    assert sum(line.count(MARKERS[0]) for line in plot) == 3
    assert LINE in text
    assert lines[-1] == "Markers: counted."


@pytest.mark.parametrize("width", [60, 100])
def test_a_terminal_gets_bars_that_are_as_long_as_their_shares(width: int) -> None:
    lines = to_terminal(BARS, width).splitlines()
    assert max(map(len, lines)) <= width
    bar = lines[lines.index("stage 3, DMHA, 224x224: 1.000 KMACs, 10.0 % left out") + 1]
    inside, outside = bar.split("|")
    assert len(inside + outside) == width - 1
    assert abs(inside.count(FILLS[0]) - 0.6 * (width - 1)) <= 0.5
    assert abs(outside.count(FILLS[2]) - 0.1 * (width - 1)) <= 1
    assert f"{FILLS[1]} offset network: 20.0 % to 30.0 %" in lines
    assert f"{FILLS[2]} sampling: 10.0 % to 20.0 % (left out)" in lines


amounts = st.floats(1e-6, 1e12)


@settings(max_examples=80, deadline=None)
@given(
    points=st.lists(
        st.tuples(amounts, amounts, amounts), min_size=1, max_size=20, unique_by=lambda p: p[0]
    ),
    logs=st.tuples(st.booleans(), st.booleans()),
    width=st.integers(LEAST_WIDTH, 150),
)
def test_any_points_are_drawn_inside_the_width(
    points: list[tuple[float, float, float]], logs: tuple[bool, bool], width: int
) -> None:
    x, y, line = zip(*sorted(points), strict=True)
    figure = Figure("t", "x", "y", (Series("a", x, y, line),), *logs)
    lines = to_terminal(figure, width).splitlines()
    assert max(map(len, lines)) <= width
    plot = [line for line in lines if set("│┤") & set(line)]
    assert 1 <= sum(line.count(MARKERS[0]) for line in plot) <= len(points)


of_parts = st.tuples(st.integers(1, 10**9), *[st.integers(0, 10**9)] * 5)


@settings(max_examples=60, deadline=None)
@given(columns=st.lists(of_parts, min_size=1, max_size=6), width=st.integers(LEAST_WIDTH, 150))
def test_every_bar_is_full(columns: list[tuple[int, ...]], width: int) -> None:
    names = tuple(f"bar {n}" for n, _ in enumerate(columns))
    parts = tuple(
        FigurePart(f"part {n}", amounts, extra=n > 3)
        for n, amounts in enumerate(zip(*columns, strict=True))
    )
    lines = to_terminal(Bars("t", names, parts, "MAC"), width).splitlines()
    bars = [line for line in lines if len(line) > 3 and set(line) <= set(FILLS + "|")]
    assert len(bars) == len(columns)
    assert all(len(bar.replace("|", "")) == width - 1 for bar in bars)


def test_names_cannot_steer_a_terminal() -> None:
    for plot in (
        Figure("\x1b[2J", "x", "y", (Series("\x1b]0;x\x07", (1,), (1,)),)),
        Bars("t", ("\x1b[2J",), (FigurePart("\x1b", (1.0,)),), "MAC"),
    ):
        assert "\x1b" not in to_terminal(plot)
