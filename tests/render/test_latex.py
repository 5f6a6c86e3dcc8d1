"""LaTeX of every table compiles, in an article of two columns, where nothing is too wide."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from datbench import units
from datbench.cli.main import main
from datbench.render.table import Column, Table
from datbench.render.text import to_latex
from tests.skips import lacks

SAMPLES = sorted((Path(__file__).parents[1] / "samples/v1").glob("*.json"))

COMMANDS = [
    "models dat++",
    "show dat_t --by module --depth 2 --res 64",
    "flops dat_t --by stage,operator,module --res 64",
    "summary dat_t datpp_t --res 64",
]
"""Real tables, beside the samples of every kind."""

ODD = Table(
    (Column("a", "α [%]"), Column("b", "b", units.integer), Column("c", "50 % & more_")),
    (
        ("[2] first", 1, "* ✓ ✗ ± × → ≤"),
        ("* star", None, "{x} ~^ <a|b> \\ $5 #"),
        ("  in", 3, "µs²"),
    ),
    "[A] title of 100 % ∞",
)

HEAD = r"""\documentclass[twocolumn]{article}
\usepackage[utf8]{inputenc}
\usepackage{booktabs,graphicx}
\begin{document}
"""


def test_every_table_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("pdflatex") is None:
        lacks("pdflatex")
    monkeypatch.chdir(tmp_path)
    commands = [c.split() for c in COMMANDS]
    # Of a plot's values and of pytest-benchmark's files no command shows a table.
    commands += [["results", "show", str(path)] for path in SAMPLES]
    parts = [to_latex([ODD, ODD], "tab-odd one")]
    for number, command in enumerate(commands):
        assert main([*command, "--out", f"table_{number}.tex"]) == 0, capsys.readouterr().err
        parts.append(Path(f"table_{number}.tex").read_text(encoding="utf-8"))
    # LaTeX keeps eighteen floats at most.
    body = "\n\\clearpage\n".join(re.split(r"(?=\\begin\{table[*}])", "\n".join(parts)))
    Path("all.tex").write_text(f"{HEAD}{body}\\end{{document}}\n", encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        capture_output=True,
        check=False,
    )
    log = Path("all.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-3000:]
    assert "multiply defined" not in log
    assert [line for line in log.splitlines() if line.startswith("Overfull \\hbox")] == []


def test_labels_are_the_files_name(tmp_path: Path) -> None:
    for name, label in (("tab-models", "models"), ("table_2", "2"), ("my models", "mymodels")):
        out = tmp_path / f"{name}.tex"
        assert main(["summary", "dat_t", "--columns", "params", "--out", str(out)]) == 0
        text = out.read_text()
        assert text.count(f"\\label{{tab:{label}}}") == 1
        assert "\\caption{Models compared: 224x224" in text
    assert "\\label" not in to_latex([ODD])
    assert "tab:odd-2" in to_latex([ODD, ODD], "odd")
