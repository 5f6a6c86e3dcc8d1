"""The promises of the project as a whole: its public names, its documents, what it loads."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import datbench
from datbench.cli.main import NAMES

ROOT = Path(__file__).parents[1]


def test_public_names_are_pinned() -> None:
    names = (
        "DatbenchError Result compare flops frame memory table throughput Resolution Setting "
        "__version__ count count_model create_model list_models load_checkpoint parameters "
        "register_rule register_timm"
    )
    assert set(datbench.__all__) == set(names.split())
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
        (
            "import datbench; datbench.flops, datbench.memory, datbench.compare\n"
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


def test_documents_agree() -> None:
    """Commands, links, versions, and the pages of the site."""
    readme, site = ((ROOT / name).read_text("utf-8") for name in ("README.md", "mkdocs.yml"))
    assert (ROOT / ".ci/run").read_text().strip().splitlines()[-1] in readme
    assert [name for name in NAMES if f"datbench {name}" not in readme] == []
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} -> {target}"
    for path in (ROOT / "docs").rglob("*.md"):
        assert str(path.relative_to(ROOT / "docs")) in site
    assert f"## {datbench.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {datbench.__version__}\n" in (ROOT / "CITATION.cff").read_text()


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


ALLOWED = "1 needs two cores (allowed: the machine has one)"
WRONG = (ALLOWED, "1 needs timm (NOT ALLOWED", "1 could not import 'nobody'")


@pytest.mark.parametrize(
    ("more", "code", "said"), [("", 0, (ALLOWED,)), ("-p xdist -n1", 1, WRONG)]
)
def test_in_ci_a_skip_needs_a_reason_that_the_machine_gives(
    more: str, code: int, said: tuple[str, ...], tmp_path: Path
) -> None:
    """Also of a module that skips itself, as a worker of xdist tells it."""
    skips = "import pytest\n{}\ndef test_passes(): pass\ndef test_skips(): pytest.skip({!r})\n"
    (tmp_path / "test_machine.py").write_text(skips.format("", "needs two cores"))
    if code:
        (tmp_path / "test_timm.py").write_text(skips.format("", "needs timm"))
        (tmp_path / "test_all.py").write_text(skips.format("pytest.importorskip('nobody')", ""))
    command = [sys.executable, "-m", "pytest", "-p", "tests.skips", *more.split()]
    environment = {**os.environ, "CI": "true", "PYTHONPATH": str(ROOT)}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take seconds
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert [words for words in said if words not in done.stdout] == []
    assert f"{len(said)} skipped" in done.stdout.splitlines()[-1]


def test_links_of_an_index_page_are_absolute() -> None:
    """README as the wheel's metadata has it."""
    pytest.importorskip("hatchling")
    import hatch_build

    metadata = {"urls": {"Repository": "https://example.org/x"}}
    hatch_build.Readme(str(ROOT), {}).update(metadata)
    targets = re.findall(r"\]\((.*?)\)", metadata["readme"]["text"])
    assert {"https://example.org/x/blob/main/docs/tables.md"} <= {*targets}
    assert {"https://example.org/x/raw/main/docs/images/flops.svg"} <= {*targets}
    assert [each for each in targets if not each.startswith("https://")] == []
