"""The promises of the project as a whole: its public names, its documents, what it loads."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import datbench
from datbench.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]


def test_public_names_are_pinned() -> None:
    assert set(datbench.__all__) == {
        "DatbenchError",
        "Resolution",
        "Setting",
        "__version__",
        "count",
        "count_model",
        "create_model",
        "list_models",
        "load_checkpoint",
        "parameters",
        "register_rule",
        "register_timm",
    }
    for name in datbench.__all__:
        assert getattr(datbench, name) is not None
    assert set(dir(datbench)) == set(datbench.__all__)
    with pytest.raises(AttributeError, match="no attribute 'flop'"):
        _ = datbench.flop


COUNTS = (
    "from datbench import Resolution, Setting, count_model\n"
    "for name in ('dat_s', 'datpp_t', 'dat_t_ddetr_16_16'):\n"
    "    count_model(name, Setting(Resolution(1280, 800)))"
)


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import datbench", "torch pandas"),
        (
            "import datbench.render.text, datbench.counting.view, datbench.counting.records",
            "torch pandas",
        ),
        # Torch's Python meta kernels would load the compiler: as much time as `import torch` again.
        (COUNTS, "torch._dynamo sympy timm torchvision pandas fvcore"),
    ],
)
def test_nothing_heavy_is_loaded_where_it_is_not_needed(code: str, heavy: str) -> None:
    """Commands are in cli/test_program.py."""
    code += f"\nimport sys; sys.exit(' '.join(set({heavy!r}.split()) & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_ci_runs_the_test_command_of_readme() -> None:
    script = (ROOT / ".ci/run").read_text().strip().splitlines()
    assert script[-1] in (ROOT / "README.md").read_text()


def test_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        assert f"datbench {command.__name__}" in readme
        assert command.__doc__


def test_commands_in_readme_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from datbench.cli.main import main

    tour = (ROOT / "README.md").read_text().partition("## A tour")[2].partition("```\n\n")[0]
    lines = re.findall(r"^datbench (.*?)(?:\s+#.*)?$", tour, flags=re.MULTILINE)
    assert len(lines) >= 10
    has_timm = importlib.util.find_spec("timm") is not None
    for line in lines:
        needs_timm = "timm:" in line or line.startswith("table ")
        if "dat_t.pth" in line or (needs_timm and not has_timm):
            continue
        arguments = [str(tmp_path / a) if a.endswith(".json") else a for a in line.split()]
        assert main(arguments) == 0, capsys.readouterr().err


def test_links_between_documents_exist() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} -> {target}"


def test_versions_agree() -> None:
    assert f"## {datbench.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_remedies_name_packages_of_the_index() -> None:
    """datbench itself is not on the index: `pip install 'datbench[timm]'` helps nobody."""
    known = set(re.findall(r'"([a-z][a-z-]*)[^"]*"', (ROOT / "pyproject.toml").read_text()))
    said = set()
    for path in [*(ROOT / "datbench").rglob("*.py"), *(ROOT / "docs").glob("*.md")]:
        for words in re.findall(
            r"pip install\s+([^.`,;{}\n]*[^.`,;{}\n\"'])", path.read_text("utf-8")
        ):
            named = [word.strip("\"'") for word in words.split() if not word.startswith("--")]
            assert known.issuperset(named), f"{path.name}: {named}"
            said.update(named)
    assert {"timm", "torchvision", "pillow", "vl-convert-python", "nvidia-ml-py"} <= said
