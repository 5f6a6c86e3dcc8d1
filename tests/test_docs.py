"""The documentation is what the program does: generated pages, examples, commands."""

import ast
import html
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from datbench.counting.rules import ABOUT, RULES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(path.name for path in DOCS.glob("*.md")), "../README.md"]

Helps = dict[str, dict[str, str]]
"""By command, ``" memory simulate"`` for instance: text by argument, option or sub-command."""

BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)


def load(name: str) -> ModuleType:
    """A program beside the pages."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["results.md", "reference/cli.md", "reference/rules.md", "reference/tables.md"]
)
def test_generated_pages_are_up_to_date(name: str) -> None:
    if name == "reference/tables.md":
        pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    written = (DOCS / name).read_text(encoding="utf-8")
    assert written == load("generate").page(name), "run python docs/generate.py"


@pytest.fixture
def helps(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Helps:
    """The help of every command and sub-command, found through the help that lists it."""
    from datbench.cli.main import main

    monkeypatch.setenv("COLUMNS", "80")
    row = re.compile(r"^  (\S.*?)(?:   *|\n {4,})(\S.*(?:\n {4,}.*)*)", re.MULTILINE)
    found, left = {}, [""]
    while left:
        words = left.pop()
        assert main([*words.split(), "--help"]) == 0
        rows = row.findall(capsys.readouterr().out.partition("Examples:\n")[0])
        found[words] = {n: "".join(text.split()) for n, text in rows if "--help" not in n}
        if words.count(" ") < 2:
            left += [f"{words} {name}" for name in found[words] if re.match("[a-z]", name)]
    return found


def test_the_reference_says_what_help_says(helps: Helps) -> None:
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    _, *parts = re.split(r"^##* datbench|^# Command line", text.partition("## Exit")[0], flags=re.M)
    page = {}
    for part in parts:
        title, _, body = part.partition("\n")
        rows = re.findall(r"^\| `(.*?)` \| (.*) \|$", body, re.MULTILINE)
        page[title] = {name: "".join(text.split()) for name, text in rows}
    assert page == helps


def test_options_are_few_and_one_name_means_one_thing(helps: Helps) -> None:
    """Its value, help and default too, which stands in the help."""
    meanings: dict[str, set[str]] = {}
    for rows in helps.values():
        for name, text in rows.items():
            for flag in re.findall(r"--?[\w-]+", name):
                meanings.setdefault(flag, set()).add(f"{name}: {text}")
    assert {name: texts for name, texts in meanings.items() if len(texts) > 1} == {}
    names = [name for name in meanings if name.startswith("--")]  # a short form is not one
    assert 20 < len(names) <= 69  # nine of them of sweeps


@pytest.mark.parametrize(
    "path", [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"], ids=lambda p: p.name
)
def test_every_command_that_is_shown_exists(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its options and arguments too, also of commands that take too long to be run in a test."""
    from datbench.cli.main import main

    code = re.findall(r"^```.*?^```|`.*?`", path.read_text(encoding="utf-8"), re.M | re.S)
    lines = "\n".join(c if c.startswith("```") else " ".join(c.split()) for c in code)
    shown = re.findall(r"^(?:\$ |`)?datbench ([^`\n\[]+)", lines, re.MULTILINE)
    for line in dict.fromkeys(shown):
        assert main([*shlex.split(line, comments=True), "--help"]) == 0, line
        assert "Usage" in capsys.readouterr().out, line


@pytest.mark.parametrize("command", ["flops", "memory", "eq10", "explain"])
def test_the_json_that_is_written_has_the_fields_of_the_page(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every object of a real document, down to the innermost; links say what stands in a field."""
    from datbench.cli.main import main

    sections = {}
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    for title, body in re.findall(r"^##+ (.*)\n((?:(?!##).*\n)*)", text, re.MULTILINE):
        rows = re.findall(r"^\| (`.*?`) \| (.*?) \| (.*?) ?\|$", body, re.MULTILINE)
        fields = {
            name: (kind, "absent: " in said)
            for names, kind, said in rows
            for name in re.findall(r"`(\w+)`", names)
        }
        sections[re.sub(r"[^\w-]", "", title.lower().replace(" ", "-"))] = fields

    def check(value: Any, section: str) -> int:
        if isinstance(value, list):
            return sum(check(each, section) for each in value)
        known = sections[section]
        assert {*value, *(name for name in known if known[name][1])} == set(known), section
        links = {name: re.search(r"\(#(.*?)\)", kind) for name, (kind, _) in known.items()}
        return 1 + sum(
            check(value[name], link[1]) for name, link in links.items() if link and value.get(name)
        )

    assert main([command, "dat_t", "--res", "64", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert check(document["rows"], document["kind"]) > 3


def test_every_rule_says_whose_it_is() -> None:
    ours = [name for name in RULES if name.startswith(("aten::", "torchvision::"))]
    assert len(ours) > 200
    for name in ours:
        assert re.search(r"fvcore|torch|mmcv|Ours", ABOUT[name]), name


def commands_of(page: str) -> list[str]:
    """Lines that a page's shell blocks show."""
    return [
        line
        for language, _, text in BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
        for line in text.splitlines()
        # Third-party counters have tests of their own, and take their time.
        if language == "sh" and line.startswith("datbench ") and "--third-party" not in line
    ]


RAN: set[str] = set()


@pytest.mark.usefixtures("_no_processes")
@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)])
def test_commands_of_a_page_run(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Files that a page shows are written, its commands are run beside them.

    A command that names no file is run for the first page that shows it.
    """
    from datbench.cli.main import main

    blocks, commands = BLOCK.findall((DOCS / page).read_text(encoding="utf-8")), commands_of(page)
    if re.search(r"timm:|table (2|3|all)", "\n".join(commands)):
        pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    for _, title, text in blocks:
        if title:
            (tmp_path / title).write_text(text, encoding="utf-8")
    for line in commands:
        if line in RAN:
            continue
        RAN.update({line} if re.fullmatch(r"[\w -]+", line) else ())
        told = re.search(r"# exit code (\d)", line)
        code = main(shlex.split(line, comments=True)[1:])
        assert code == (int(told[1]) if told else 0), (line, capsys.readouterr().err)
    sys.modules.pop("my_net", None)


@pytest.mark.parametrize(("name", "width"), [("flops", 104), ("table", 112)])
def test_pictures_of_the_terminal_show_what_is_printed(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text in the picture against the program; if one is old: python docs/draw.py."""
    from datbench.cli.main import main

    picture = html.unescape((DOCS / "images" / f"{name}.svg").read_text(encoding="utf-8"))
    lines: dict[str, str] = {}  # by height, without blanks
    for height, text in re.findall(
        r'<text class="\w+-r.*? y="([\d.]+)"[^>]*>(.*?)</text>', picture
    ):
        lines[height] = lines.get(height, "") + "".join(text.split())
    command, *shown = lines.values()
    if name == "table":
        pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    monkeypatch.setenv("COLUMNS", str(width))
    words = {"flops": "flops dat_s --res 1280x800", "table": "table 2"}[name]
    assert command == f"$ datbench {words}".replace(" ", "")
    assert main(words.split()) == 0
    printed = ["".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert shown == [line for line in printed if line]


def test_plots_of_the_pages_are_todays() -> None:
    """Their lines and bars; if one is old: python docs/draw.py."""
    pytest.importorskip("vl_convert", reason="needs datbench[plots]")
    marks = re.compile(r'class="mark-\w+ role-mark[^>]*>(.*?)</g>', re.DOTALL)
    for name, drawn in load("draw").plots().items():
        found = marks.findall((DOCS / "images" / name).read_text(encoding="utf-8"))
        assert found
        assert found == marks.findall(drawn.decode()), name


@pytest.mark.filterwarnings("ignore:the machine is loaded")
@pytest.mark.parametrize(
    "page", ["tutorial", "python", pytest.param("export", marks=pytest.mark.slow)]
)
def test_python_of_the_pages_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block, one after the other, with the figure that a line's comment gives."""
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall((DOCS / f"{page}.md").read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    figures = 0
    for code in (text for language, title, text in blocks if language == "python"):
        for statement in ast.parse(code).body:
            line = ast.get_source_segment(code, statement)
            told = re.search(r"  # ([\d*+(), ]+)$", code.splitlines()[statement.end_lineno - 1])
            if told:
                figures += 1
                assert eval(line, names) == eval(told[1])
            else:
                exec(line, names)
    assert figures == 1


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
