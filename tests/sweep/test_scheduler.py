"""A scheduler that is missing, silent or strange: stand-ins for its commands say so."""

import time
from pathlib import Path

import pytest

from datbench.sweep import slurm
from tests.cli.runner import Run

from .small import models, plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep of two units."""
    named = models(tmp_path, "a", "b")
    return plan(tmp_path / "grid", f'[[grid]]\nkind = "flops"\nres = 32\nmodel = {named}\n')


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with programs: stand-ins that a test writes."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))
    for name, value in {"PATIENCE": 0.3, "SILENCE": 0.5, "POLL": 0.05}.items():
        monkeypatch.setattr(slurm, name, value)
    return place


def stand_in(place: Path, **scripts: str) -> None:
    """Programs, each with its lines of shell."""
    for name, lines in scripts.items():
        path = place / name
        path.write_text(f"#!/bin/sh\n{lines}\n", encoding="utf-8")
        path.chmod(0o755)


def submit(run: Run, folder: Path, *more: str) -> list[str]:
    """What a submission that does not end well says, with its exit code first."""
    result = run("sweep", "run", str(folder), "--engine", "slurm", *more)
    return [str(result.code), *result.err.splitlines()]


def test_no_slurm(run: Run, folder: Path, commands: Path) -> None:
    code, line = submit(run, folder)
    assert code == "2"
    assert "is not here: run this where Slurm's commands are" in line


@pytest.mark.parametrize("squeue", ["/bin/sleep 5", "echo 'Unable to contact' >&2; exit 1"])
def test_a_queue_that_does_not_answer_is_not_empty(
    run: Run, folder: Path, commands: Path, squeue: str
) -> None:
    """After a submission, nothing is submitted again."""
    stand_in(commands, scontrol="", sbatch=f"echo x >> {folder}/asked; echo 7", squeue=squeue)
    code, warning, line = submit(run, folder)
    assert code == "5"
    assert "squeue does not answer; jobs may be at work, so this waits" in warning
    assert "give the same command again later" in line
    assert (folder / "asked").read_text() == "x\n"
    assert "Slurm does not answer" in " ".join(run("sweep", "status", str(folder)).text.split())
    assert "squeue does not answer" in run("sweep", "cancel", str(folder)).complaint(5)


@pytest.mark.parametrize(
    ("sbatch", "code", "said"),
    [
        ("exit 1 # Batch job submission failed: Invalid account", "2", "Invalid account."),
        ("exit 1 # Unable to contact slurm controller", "5", "cannot be reached"),
        # Neither accepted nor refused, three times.
        ("exit 1 # Socket timed out", "5", "end without new records"),
        # Jobs that end at once.
        ("echo 7", "5", "end without new records; 2 units are pending"),
    ],
)
def test_submissions_that_come_to_nothing(
    run: Run, folder: Path, commands: Path, sbatch: str, code: str, said: str
) -> None:
    exits, _, complaint = sbatch.partition(" # ")
    script = f"echo x >> {folder}/asked\necho 'sbatch: error: {complaint}' >&2\n{exits}"
    stand_in(commands, scontrol="", squeue="", sbatch=script)
    found, *lines = submit(run, folder)
    assert found == code
    assert said in lines[-1]
    assert (folder / "asked").read_text().count("x") == (3 if "records" in said else 1)


def test_options_are_passed_as_they_are(run: Run, folder: Path, commands: Path) -> None:
    """Those of sweep.toml first, which the command line replaces; what is false is left out."""
    text = (folder / "sweep.toml").read_text()
    table = '[slurm]\npartition = "a"\ntime = 90\ncomment = "two words"\nexclusive = true\n'
    (folder / "sweep.toml").write_text(f"{text}\n{table}hold = false\nsetup = ['one', 'two']\n")
    stand_in(commands, scontrol="", squeue="", sbatch='printf "%s\\n" "$@" >&2; exit 1')
    code, line = submit(run, folder, "--slurm", "partition=b,c", "--slurm", "cpus-per-task=4")
    assert code == "2"
    said = line.split("; ")
    for each in ("--partition=b,c", "--time=90", "--comment=two words", "--exclusive"):
        assert each in said
    assert "--cpus-per-task=4" in said
    assert "hold" not in line
    assert "--array=1" in said
    assert "#!/bin/bash\none\ntwo\nexec " in (folder / "slurm.sh").read_text()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("Partition=x", "write a long option of sbatch"),
        ("p=x", "write a long option of sbatch"),
        ("=x", "write a long option of sbatch"),
        ("array=1-4", "is set by the sweep"),
        ("job-name=mine", "is set by the sweep"),
        ("clusters=other", "SLURM_CLUSTERS=NAME"),
    ],
)
def test_options_that_cannot_be_passed(
    run: Run, folder: Path, commands: Path, option: str, said: str
) -> None:
    code, line = submit(run, folder, "--slurm", option)
    assert code == "2"
    assert said in line
    assert not (folder / "slurm.jsonl").exists()


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        ("1:05", 65),
        ("59:59", 3599),
        ("2:00:00", 7200),
        ("1-02:03:04", 93784),
        ("UNLIMITED", float("inf")),
        ("", float("inf")),
    ],
)
def test_the_end_of_a_job(
    commands: Path, monkeypatch: pytest.MonkeyPatch, left: str, seconds: float
) -> None:
    """The formats of squeue(1), asked of one task of an array."""
    assert slurm.end_of_job() == float("inf")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    stand_in(commands, squeue=f'case "$*" in *--job=5_2*) echo "{left}";; esac')
    assert slurm.end_of_job() - time.time() == pytest.approx(seconds, abs=5)
