"""The composite action: its steps' commands, run in a plain shell as a workflow would run them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())

NET = """
from torch import nn


def make():
    return nn.Sequential(nn.Conv2d(3, {width}, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""

PROGRAM = f"""#!{sys.executable}
from datbench.cli.main import entry

entry()
"""


class Workflow:
    """Runs steps as GitHub does: expressions put in, an environment each, outputs collected."""

    def __init__(self, folder: Path, inputs: dict[str, str]) -> None:
        self.folder = folder
        self.inputs = {n: str(i.get("default", "")) for n, i in ACTION["inputs"].items()} | inputs
        self.outputs: dict[str, dict[str, str]] = {}
        self.failed = False
        self.used: dict[str, dict[str, str]] = {}
        self.summary = folder / "summary.md"
        program = folder / "bin" / "datbench"
        program.parent.mkdir()
        program.write_text(PROGRAM)
        program.chmod(0o755)

    def value(self, text: str) -> str:
        """Text with its expressions evaluated."""
        return re.sub(r"\$\{\{(.*?)\}\}", lambda match: self._expression(match[1].strip()), text)

    def _expression(self, text: str) -> str:
        kind, _, rest = text.partition(".")
        if kind == "inputs":
            return self.inputs[rest]
        if kind == "steps":
            step, _, name = rest.partition(".outputs.")
            return self.outputs.get(step, {}).get(name, "")
        assert text == "github.action_path"
        return str(ROOT)

    def wanted(self, step: dict[str, Any]) -> bool:
        """Whether a step runs: its condition, which without a word about the job's status is
        ``success() && (...)``."""
        condition = str(step.get("if", "success()")).strip()
        inside = re.fullmatch(r"\$\{\{(.*)\}\}", condition)
        condition = inside[1].strip() if inside else condition
        if not re.search(r"\b(always|success|failure|cancelled)\(\)", condition):
            condition = f"success() && ({condition})"
        return self._holds(condition)

    def _holds(self, condition: str) -> bool:
        """GitHub's expressions as far as the action has them; || binds weaker than &&."""
        condition = condition.strip()
        while match := re.search(r"\(([^()]+)\)", condition):  # the innermost brackets first
            word = "true" if self._holds(match[1]) else "false"
            condition = condition[: match.start()] + word + condition[match.end() :]
        for operator, every in (("||", any), ("&&", all)):
            if operator in condition:
                return every([self._holds(part) for part in condition.split(operator)])
        if compared := re.fullmatch(r"([a-z.-]+) (!=|==) '([^']*)'", condition):
            left = self._expression(compared[1])
            return (left == compared[3]) == (compared[2] == "==")
        known = {"always()": True, "success()": not self.failed, "failure()": self.failed}
        return (known | {"true": True, "false": False})[condition]

    def run(self, name: str) -> subprocess.CompletedProcess[str] | None:
        """Run one step; None if its condition does not hold."""
        (step,) = (step for step in ACTION["runs"]["steps"] if step["name"] == name)
        if not self.wanted(step):
            return None
        if "uses" in step:
            self.used[name] = {key: self.value(text) for key, text in step["with"].items()}
            return None
        output = self.folder / "output"
        output.write_text("")
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "OMP_NUM_THREADS": "1",
            **{key: self.value(text) for key, text in step.get("env", {}).items()},
        }
        done = subprocess.run(
            # As GitHub runs `shell: bash`.
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        pairs = (line.partition("=") for line in output.read_text().splitlines())
        self.outputs[step.get("id", name)] = {key: value for key, _, value in pairs}
        self.failed = self.failed or done.returncode != 0
        return done

    def ran(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run one step, whose condition holds."""
        done = self.run(name)
        assert done is not None
        return done

    def job(self) -> list[str]:
        """Every step in order; the names of those that ran."""
        names = []
        for step in ACTION["runs"]["steps"]:
            before = len(self.used)
            if self.run(step["name"]) is not None or len(self.used) > before:
                names.append(step["name"])
        return names


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with a model and a baseline."""
    from datbench.cli.main import main

    (tmp_path / "action_net.py").write_text(NET.format(width=4))
    here = Path.cwd()
    os.chdir(tmp_path)
    before = list(sys.path)
    try:
        assert main("gate update action_net:make --res 32 --baseline b.json".split()) == 0
    finally:
        os.chdir(here)
        sys.path[:] = before
        sys.modules.pop("action_net", None)
    return tmp_path


def test_the_gate_of_the_action(project: Path) -> None:
    """What changed is found, and the job fails only after everything else has run."""
    workflow = Workflow(project, {"baseline": "b.json"})
    (project / "action_net.py").write_text(NET.format(width=5))
    gate = workflow.ran("Gate")
    assert gate.returncode == 0, gate.stderr
    assert workflow.outputs["gate"] == {"exit-code": "1"}
    assert "0 conv2d: conv" in gate.stderr
    verdicts = json.loads((project / "datbench-report" / "gate.json").read_text())["rows"]
    assert [row["verdict"] for row in verdicts] == ["changed"]
    assert "0.weight" in workflow.summary.read_text()
    assert workflow.ran("Verdict").returncode == 1


@pytest.mark.parametrize("code", [0, 2, 3, 4, 5])
def test_the_job_ends_as_the_gate_did(tmp_path: Path, code: int) -> None:
    inputs = {"baseline": "b.json", "gate-args": "--from t.json --allow-fewer"}
    workflow = Workflow(tmp_path, inputs)
    (tmp_path / "bin" / "datbench").write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n')
    gate = workflow.ran("Gate")
    assert gate.returncode == 0
    said = "gate --baseline b.json --out datbench-report/gate.json --from t.json --allow-fewer\n"
    assert gate.stdout == said
    assert workflow.ran("Verdict").returncode == code


def test_steps_that_nobody_asked_for_are_left_out(tmp_path: Path) -> None:
    workflow = Workflow(tmp_path, {})
    assert [workflow.run(name) for name in ("Gate", "Report", "Verdict")] == [None] * 3


def test_install_takes_datbench_from_the_action(tmp_path: Path) -> None:
    """pip is a stand-in that says what it was called with: nothing is fetched."""
    workflow = Workflow(tmp_path, {"install": "-e . timm"})
    _stand_in(tmp_path, "python", 'echo "$@" >> calls')
    done = workflow.ran("Install")
    assert done.returncode == 0, done.stderr
    index = "-m pip install --quiet --extra-index-url https://download.pytorch.org/whl/cpu"
    calls = tmp_path / "calls"
    assert calls.read_text().splitlines() == [f"{index} torch {ROOT}", f"{index} torch -e . timm"]
    calls.unlink()
    workflow.inputs |= {"tables": "2", "install": ""}
    workflow.run("Install")
    assert calls.read_text().splitlines() == [f"{index} torch {ROOT}[report]"]


def _stand_in(folder: Path, name: str, script: str) -> None:
    program = folder / "bin" / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("wanted", "installed"),
    [("", "torch==2.6.1"), ("2.7.0", "torch==2.7.0"), ("latest", "torch")],
)
def test_install_takes_the_baselines_torch(tmp_path: Path, wanted: str, installed: str) -> None:
    """Otherwise a release of torch would turn every pull request red."""
    from datbench.gate.files import text_of

    (tmp_path / "b.json").write_text(text_of([], {"python": "3.12.1", "torch": "2.6.1+cu124"}))
    inputs = {"baseline": "b.json", "install": "timm", "torch-version": wanted}
    workflow = Workflow(tmp_path, inputs)
    _stand_in(tmp_path, "python", 'echo "$@" >> calls')
    assert workflow.run("Install") is not None
    words = [line.split()[6] for line in (tmp_path / "calls").read_text().splitlines()]
    assert words == [installed, installed]


ALL = ["Set up Python", "Install", "Gate", "Report", "Upload", "Verdict"]


@pytest.mark.parametrize(
    ("broken", "ran", "code"),
    [
        ("", ALL, 0),
        ("Install", ["Set up Python", "Install", "Upload", "Verdict"], 5),
        ("Gate", ALL, 1),
        ("Report", ALL, 0),
    ],
)
def test_a_job_whatever_fails(tmp_path: Path, broken: str, ran: list[str], code: int) -> None:
    """What there is is uploaded, and the job ends as the gate or the broken step did."""
    workflow = Workflow(tmp_path, {"baseline": "b.json", "models": "dat_t", "artifact": "kept"})
    _stand_in(tmp_path, "python", f"exit {int(broken == 'Install')}")
    _stand_in(tmp_path, "datbench", f"test $1 != {broken.lower() or 'nothing'}")
    assert workflow.job() == ran
    assert workflow.failed == bool(broken)
    wanted = {"name": "kept", "path": "datbench-report", "if-no-files-found": "ignore"}
    assert workflow.used["Upload"] == wanted
    assert workflow.ran("Verdict").returncode == code
    output = workflow.value(ACTION["outputs"]["exit-code"]["value"])
    assert output == ("" if broken == "Install" else str(code))


def test_no_artefact_where_nobody_wants_one(tmp_path: Path) -> None:
    workflow = Workflow(tmp_path, {"artifact": "", "python-version": ""})
    _stand_in(tmp_path, "python", "exit 0")
    assert workflow.job() == ["Install"]


def test_the_report_gets_what_was_asked_for(tmp_path: Path) -> None:
    """The step's words, by a stand-in for the program."""
    workflow = Workflow(tmp_path, {"models": "dat_t a.b:c", "from": "t.json"})
    (tmp_path / "bin" / "datbench").write_text('#!/bin/sh\necho "$@"\n')
    done = workflow.ran("Report")
    words = "report dat_t a.b:c --out datbench-report --tables none --from t.json"
    assert done.stdout.split() == words.split()
    workflow.inputs |= {"models": "", "tables": "2 6", "from": "", "baseline": "b.json"}
    done = workflow.ran("Report")
    words = "report none --out datbench-report --tables 2 --tables 6 --baseline b.json"
    assert done.stdout.split() == words.split()


def test_the_report_of_the_action(project: Path) -> None:
    """The program itself; without the page, which needs more than this test may ask for."""
    inputs = {"baseline": "b.json", "models": "action_net:make", "report-args": "--plots none"}
    workflow = Workflow(project, inputs)
    done = workflow.ran("Report")
    assert done.returncode == 0, done.stderr
    assert "action_net:make" in (project / "datbench-report" / "comment.md").read_text()


def test_every_step_and_input_is_used() -> None:
    steps = ACTION["runs"]["steps"]
    assert ACTION["runs"]["using"] == "composite"
    assert all(step.get("shell") == "bash" for step in steps if "run" in step)
    text = (ROOT / "action.yml").read_text()
    for name, described in ACTION["inputs"].items():
        assert described["description"]
        assert f"inputs.{name}" in text
        assert f"`{name}`" in (ROOT / "docs" / "ci.md").read_text()
    # Inputs never stand in a command itself, where they would be run.
    assert not any("${{" in step.get("run", "") for step in steps)


def test_the_projects_workflow_uses_the_action() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "datbench.yml").read_text())
    (ours,) = (s for s in workflow["jobs"]["gate"]["steps"] if s.get("uses") == "./")
    assert set(ours["with"]) <= set(ACTION["inputs"])
    assert (ROOT / ours["with"]["baseline"]).is_file()
