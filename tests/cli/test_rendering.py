"""Tables on terminals of any width: nothing is cut, and nothing is coloured but on a terminal."""

import io
import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from datbench import units
from datbench.render.table import Column, Table
from datbench.render.text import print_tables

from .runner import Run

NAMES = ("dat_t_no_offsets_no_bias", "datpp_b_384")
COMMANDS = {
    "flops": ("flops", "dat_s", "--res", "1280x800"),
    "flops of several": ("flops", *NAMES),
    "flops, strict": ("flops", NAMES[1], "--convention", "strict"),
    "models": ("models",),
    "show dat_s": ("show", "dat_s"),
    "show datpp_t": ("show", "datpp_t"),
    "params": ("params", "dat_t_no_offsets_no_bias", "--by", "stage"),
    "env": ("env",),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_eighty_columns_are_enough(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    wide = run(*COMMANDS[command]).text
    monkeypatch.setenv("COLUMNS", "80")
    text = run(*COMMANDS[command]).text
    assert max(map(len, text.splitlines())) <= 80
    # Numbers and names whole and on their lines: only prose is folded, and notes are left out.
    wide, text = (re.sub(r"(?s)\nStem .*", "", shown) for shown in (wide, text))
    numbers = r"(?<![\w.])\d[\d,.]*(?: [KMGT]iB)?(?![\w.])"
    assert sorted(re.findall(numbers, text)) == sorted(re.findall(numbers, wide))
    assert set(re.findall(r"\w*_\w+", text)) == set(re.findall(r"\w*_\w+", wide))
    assert len(re.findall("─+", text)) == len(re.findall("─+", wide))  # no table goes on below


@pytest.mark.parametrize("columns", ["1", "20", "60"])
def test_a_narrow_terminal_gets_a_table_in_parts(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    (total,) = (
        re.split(" {2,}", line)
        for line in run("flops", "dat_t", "--by", "stage").text.splitlines()
        if line.startswith("total ")
    )
    monkeypatch.setenv("COLUMNS", columns)
    text = run("flops", "dat_t", "--by", "stage").text
    lines = text.splitlines()
    assert len(total) == 8
    if columns == "20":  # the widest pair of columns
        assert max(map(len, lines)) <= 20
        assert len([line for line in lines if line.startswith("stages.3 ")]) > 1
        assert all(cell in text for cell in total)
    if columns == "60":  # fewer columns need no parts
        assert max(map(len, lines)) <= 60
        assert len([line for line in lines if line.startswith("stages.3 ")]) == 1
        assert "not shown at this width: calls, MAC/byte; --notes shows them" in lines


cells = st.text("abc_019.", min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(cells, st.integers(0, 10**12), cells, st.integers(0, 10**9)), min_size=1
    ),
    width=st.integers(64, 200),
)
def test_no_number_and_no_name_is_ever_cut(
    rows: list[tuple[str, int, str, int]], width: int
) -> None:
    columns = (
        Column("name", "name"),
        Column("n", "number", units.integer),
        Column("prose", "prose"),
        Column("m", "another", units.integer),
    )
    stream = io.StringIO()
    print_tables([Table(columns, tuple(rows))], Console(file=stream, width=width))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    printed = " ".join(lines).split()
    for name, number, prose, other in rows:
        assert {name, units.integer(number), prose, units.integer(other)} <= set(printed)


LABEL = Column("model", "model", label=True)
STAGE = Column("stage", "stage", units.integer, label=True)


def _printed(table: Table, width: int, everything: bool = False) -> list[str]:
    stream = io.StringIO()
    print_tables([table], Console(file=stream, width=width), everything)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("notes", "shown"),
    [
        (["a b"] * 5, ["a b"] * 5),
        (["a b"] * 6, ["a b"] * 4 + ["... 2 more notes; --notes shows them"]),
        # Whole notes alone, but of the first what there is room for.
        (["a", "b " * 80, "c"], ["a", "... 2 more notes; --notes shows them"]),
        (["word " * 60], ["word " * 8] * 4 + ["... 1 more note; --notes shows it"]),
    ],
)
def test_five_lines_of_notes(notes: list[str], shown: list[str]) -> None:
    table = Table((LABEL,), (("x",),), notes=tuple(notes))
    assert _printed(table, 40)[3:] == [line.rstrip() for line in shown]
    everything = _printed(table, 40, everything=True)[3:]
    assert " ".join(everything).split() == " ".join(notes).split()


def test_spare_columns_go_before_a_table_comes_in_parts() -> None:
    columns = (
        *(LABEL, STAGE),
        Column("a", "first", units.integer, when="wide"),
        Column("b", "second", units.integer, when="widest"),
        Column("c", "third", units.integer),
        Column("d", "fourth", units.integer),
        Column("e", "published", units.integer, when="asked"),
    )
    table = Table(columns, (("net", 3, *[10**9] * 5),), notes=("one", "two", "three", "four"))
    asked = "published; --notes shows them"
    for width, missing in ((72, ""), (71, "second, "), (56, "first, second, ")):
        shown = _printed(table, width)
        assert f"not shown: {missing}{asked}" in shown
        assert sum(line.startswith("net") for line in shown) == 1
        assert len(shown) == 3 + 5  # the line is one of the five
    # Where it comes in parts anyhow, nothing more is left out, and every part names its rows.
    parts = [line for line in _printed(table, 41) if line.startswith("net")]
    assert len(parts) == 4
    assert {tuple(line.split()[:2]) for line in parts} == {("net", "3")}
    every = _printed(table, 72, everything=True)
    assert not any("not shown" in line for line in every)
    assert sum(line.startswith("net") for line in every) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal(run: Run, columns: int) -> None:
    """Through a pseudo-terminal: its width is kept to, titles are bold."""
    import fcntl
    import pty
    import struct
    import subprocess
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(
        [sys.executable, "-m", "datbench", "models", "ablation"],
        stdout=theirs,
        stderr=theirs,
        env=environment,
        cwd=Path(),
    ) as process:
        os.close(theirs)
        drawn = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            drawn += part
    os.close(ours)
    assert process.returncode == 0
    text = drawn.decode()
    assert "\x1b[1mablation\x1b[0m" in text
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= columns
    assert "dat_t_no_offsets_no_bias" in plain
