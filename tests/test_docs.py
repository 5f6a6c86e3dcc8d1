"""The documentation is what the program does: generated pages, examples, commands."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from datbench.counting.rules import ABOUT, RULES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))

BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["results.md", "reference/cli.md", "reference/rules.md", "reference/tables.md"]
)
def test_generated_pages_are_up_to_date(generate: ModuleType, name: str) -> None:
    if name == "reference/tables.md":
        pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    written = (DOCS / name).read_text(encoding="utf-8")
    assert written == generate.page(name), "run python docs/generate.py"


def test_every_rule_says_whose_it_is() -> None:
    ours = [name for name in RULES if name.startswith(("aten::", "torchvision::"))]
    assert len(ours) > 200
    for name in ours:
        assert re.search(r"fvcore|torch|mmcv|Ours", ABOUT[name]), name


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_run(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Files that a page shows are written, its commands are run beside them."""
    from datbench.cli.main import main

    blocks = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    commands = [
        shlex.split(line, comments=True)[1:]
        for language, _, text in blocks
        for line in text.splitlines()
        # The peers have tests of their own, and take their time.
        if language == "sh" and line.startswith("datbench ") and "--third-party" not in line
    ]
    if not commands:
        pytest.skip("shows no command")
    if any("timm:" in word or word in ("2", "all") for words in commands for word in words):
        pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    for _, title, text in blocks:
        if title:
            (tmp_path / title).write_text(text, encoding="utf-8")
    for words in commands:
        assert main(words) == 0, capsys.readouterr().err
    sys.modules.pop("my_net", None)


def test_python_of_the_pages_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tutorial's Python, with the figure that its comment gives."""
    blocks = BLOCK.findall((DOCS / "tutorial.md").read_text(encoding="utf-8"))
    (code,) = (text for language, title, text in blocks if language == "python")
    names: dict[str, object] = {}
    *before, last = code.strip().splitlines()
    exec("\n".join(before), names)
    expression, _, figure = last.partition("  # ")
    assert eval(expression, names) == int(figure)


def test_every_page_is_in_the_navigation() -> None:
    site = (ROOT / "mkdocs.yml").read_text()
    for path in DOCS.rglob("*.md"):
        assert str(path.relative_to(DOCS)) in site


def test_the_account_of_what_is_wrong_in_print_is_whole() -> None:
    """Print and computed figure of every cell that does not agree stand there; README counts."""
    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    from datbench.paper.tables import paper_tables
    from datbench.paper.verdicts import compare
    from datbench.paper.workshop import Workshop
    from datbench.units import prefixed

    workshop, tables = Workshop(), paper_tables()
    cells = [cell for table in tables for cell in compare(table, tables, workshop).cells()]
    costs = [cell for cell in cells if cell.evidence and cell.table != "1"]
    agree = sum(cell.verdict == "agrees" for cell in costs)
    sizes = sum(cell.verdict == "agrees" for cell in cells if cell.table == "1")
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"{agree} cells agree, and each of the other {len(costs) - agree} says" in readme
    assert f"So do the {sizes} sizes of Table 1" in readme
    text = (DOCS / "tables.md").read_text(encoding="utf-8")
    bullets = [" ".join(bullet.split()) for bullet in re.split(r"^- ", text, flags=re.MULTILINE)]
    for cell in costs:
        if cell.verdict != "agrees":
            prefix = "M" if cell.quantity == "params" else "G"
            model = cell.row.partition(",")[0]
            figure = f"{prefixed(cell.amount or 0, prefix)}{prefix}"
            if cell.quantity == "memory":
                figure = f"{(cell.amount or 0) / 2**30:.2f}"
            assert any(
                model in bullet and cell.printed in bullet and figure in bullet
                for bullet in bullets
            ), (cell.row, cell.printed, figure)
