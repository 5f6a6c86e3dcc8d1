"""A sweep on a Slurm cluster: one array of jobs whose tasks are shards.

Records decide what is done; the scheduler is asked only whether anything is still at work. Nothing
here needs an accounting database.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DatbenchError, MeasurementError, UsageError, warn
from ..files import write_whole
from ..render.terminal import ProgressBars
from .run import RunPlan, shard_of
from .store import Sweep

PATIENCE = 60.0
"""Seconds that a command of Slurm's may take."""

SILENCE = 600.0
"""Seconds for which Slurm may not answer while jobs are waited for."""

POLL = 5.0
"""Seconds between two looks at the records and the queue."""

SUBMISSIONS = 3
"""Arrays that may end without any new record before this gives up."""

SUBMITTED = "slurm.jsonl"


@dataclass(frozen=True)
class Answer:
    """What a command of Slurm's said."""

    code: int | None  # None where it did not answer in time
    text: str
    errors: str


def ask(*command: str) -> Answer:
    """Run a command of Slurm's.

    Raises:
        UsageError: it is not installed.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except FileNotFoundError:
        raise UsageError(
            f"{command[0]} is not here: run this where Slurm's commands are, or without --engine."
        ) from None
    except subprocess.TimeoutExpired:
        return Answer(None, "", f"{command[0]} did not answer in {PATIENCE:g} s")
    return Answer(done.returncode, done.stdout.strip(), done.stderr.strip())


def options_of(pairs: Sequence[str]) -> dict[str, Any]:
    """What ``--slurm partition=gpu`` says.

    Raises:
        UsageError: one has no value.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not re.fullmatch(r"[a-z][a-z-]*", name) or not (equals or value):
            raise UsageError(f"--slurm {pair!r}: write an option of sbatch, such as partition=gpu.")
        found[name] = value
    return found


class Cluster:
    """The jobs of one sweep on Slurm.

    Args:
        options: of sbatch, by their long names; ``setup`` is lines of shell before the work.
    """

    def __init__(self, sweep: Sweep, options: Mapping[str, Any]) -> None:
        self.sweep = sweep
        self.setup = str(options.get("setup", ""))
        self.options = {k: v for k, v in options.items() if k != "setup"}
        self.path = sweep.folder / SUBMITTED

    def run(self, plan: RunPlan) -> None:
        """Submit what is pending and wait for it; again where shards ended without their records.

        Ctrl-C leaves the jobs at work.

        Raises:
            UsageError: Slurm is not here, or refuses the job.
            MeasurementError: Slurm does not answer, or arrays end without records.
        """
        shards, idle = self._shards(plan.jobs), 0
        with ProgressBars() as bars:
            while True:
                before = len(self.sweep.scan())
                if before == len(self.sweep.units):
                    return
                if not (self.alive() or {}):
                    if idle >= SUBMISSIONS:
                        raise MeasurementError(
                            f"{idle} arrays of jobs ended without a new record; "
                            f"{self.sweep.folder / 'log'} has what they said."
                        )
                    shards = self.submit(plan, shards)
                self._wait(bars, shards, before)
                idle = idle + 1 if len(self.sweep.scan()) == before else 0

    def _wait(self, bars: ProgressBars, shards: int, before: int) -> None:
        """Until no job is in the queue, showing the shards."""
        began, answered = time.monotonic(), time.monotonic()
        while True:
            done = self.sweep.scan()
            passed, new = time.monotonic() - began, len(done) - before
            left = passed / new * (len(self.sweep.units) - len(done)) if new else 0.0
            for shard in range(1, shards + 1):
                mine = shard_of(self.sweep, shard, shards)
                finished = sum(each.key in done for each in mine)
                line = f"ok, {len(done)} of {len(self.sweep.units)} units of all"
                bars.show(f"shard {shard}/{shards}", finished, len(mine), "", left, line)
            jobs = self.alive()
            if jobs is not None:
                answered = time.monotonic()
            elif time.monotonic() - answered > SILENCE:
                raise MeasurementError(
                    f"squeue has not answered for {SILENCE / 60:.0f} minutes; jobs may be at work: "
                    "give the same command again later."
                )
            if jobs == {} or len(done) == len(self.sweep.units):
                return
            time.sleep(POLL)

    def _shards(self, wanted: int) -> int:
        """As many as an array may have, and as there are units; those of jobs that are at work."""
        known = self._submitted()
        if known and self.alive():
            return int(known[-1]["shards"])
        answer = ask("scontrol", "show", "config")
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", answer.text)
        most = int(found[1]) if found else 1001  # Slurm's default
        if wanted > most:
            warn(f"this cluster's arrays have at most {most} tasks (MaxArraySize), not {wanted}.")
        return max(1, min(wanted, most, len(self.sweep.units)))

    def submit(self, plan: RunPlan, shards: int) -> int:
        """Submit an array of the shards that have pending units; the number of shards.

        Raises:
            UsageError: Slurm refuses it.
            MeasurementError: it did not answer, and there is no such job.
        """
        done = self.sweep.scan()
        indices = [
            shard
            for shard in range(1, shards + 1)
            if any(each.key not in done for each in shard_of(self.sweep, shard, shards))
        ]
        token = f"datbench-{secrets.token_hex(4)}"
        log = self.sweep.folder.absolute() / "log"
        log.mkdir(exist_ok=True)  # without it a job ends at once and says nothing
        script = self.sweep.folder / "slurm.sh"
        write_whole(script, self.script(plan, shards))
        # Written before: if sbatch is killed, the token still finds the job.
        self._note(token, shards)
        options = {"requeue": "", "open-mode": "append", "signal": "B:USR1@60"} | self.options
        command = [
            "sbatch",
            "--parsable",
            f"--job-name={token}",
            f"--array={','.join(map(str, indices))}",
            f"--output={log}/%A_%a.log",
            *(
                f"--{name}={value}" if value != "" else f"--{name}"
                for name, value in options.items()
            ),
            str(script.absolute()),
        ]
        answer = ask(*command)
        if answer.code == 0:
            return shards
        # "Socket timed out" is said of jobs that were accepted, too.
        deadline = time.monotonic() + PATIENCE
        lost = answer.code is None or "timed out" in answer.errors.lower()
        while lost and time.monotonic() < deadline:
            jobs = self.alive()
            if jobs:
                return shards
            time.sleep(1.0)
        said = answer.errors.splitlines()[-1] if answer.errors else f"exit code {answer.code}"
        if lost:
            raise MeasurementError(f"Slurm did not take the jobs: {said}.")
        raise UsageError(f"sbatch refuses the jobs: {said}.")

    def script(self, plan: RunPlan, shards: int) -> str:
        """What each task runs."""
        more = [] if plan.prune else ["--no-prune"]
        more += [] if plan.timeout is None else ["--timeout", f"{plan.timeout:g}"]
        command = shlex.join(
            [sys.executable, "-m", "datbench", "sweep", "run", str(self.sweep.folder.absolute())]
        )
        options = shlex.join([*more, "--changed", "keep"])
        return (
            "#!/bin/bash\n"
            f"{self.setup}\n"
            # A signal of the scheduler's goes to the program.
            f'exec {command} --shard "$SLURM_ARRAY_TASK_ID/{shards}" {options}\n'
        )

    def alive(self) -> dict[str, str] | None:
        """The state of each job that is in the queue; None where Slurm does not say."""
        names = [each["token"] for each in self._submitted()]
        if not names:
            return {}
        answer = ask("squeue", "--noheader", f"--name={','.join(names)}", "--format=%i %T")
        if answer.code != 0:
            return None
        return dict(line.split(None, 1) for line in answer.text.splitlines() if " " in line)

    def cancel(self) -> int:
        """End all jobs of the sweep; how many there were.

        Raises:
            MeasurementError: Slurm does not answer.
        """
        jobs = self.alive()
        if jobs:
            answer = ask("scancel", "--full", *{job.partition("_")[0] for job in jobs})
            if answer.code != 0:
                raise MeasurementError(f"scancel failed: {answer.errors or 'no answer'}.")
        if jobs is None:
            raise MeasurementError("squeue does not answer; try again later.")
        return len(jobs)

    def _note(self, token: str, shards: int) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"token": token, "shards": shards}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DatbenchError(f"could not write {self.path}: {error.strerror}.") from error

    def _submitted(self) -> list[dict[str, Any]]:
        """Arrays that were submitted, or that may have been; a line cut off is none."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found


def end_of_job() -> float:
    """When the job that this runs in ends, in seconds since the epoch; infinity outside of one."""
    told = os.environ.get("SLURM_JOB_END_TIME", "")
    if told.isdecimal():
        return float(told)
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return float("inf")
    try:
        answer = ask("squeue", "--noheader", f"--job={job}", "--format=%L")
    except UsageError:
        return float("inf")
    return time.time() + seconds_of(answer.text)


def seconds_of(text: str) -> float:
    """Seconds of ``1-02:03:04``, ``02:03`` ...; infinity for anything else."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.splitlines()[0] if text else "")
    if match is None:
        return float("inf")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def has_jobs(folder: Path) -> bool:
    """Whether a sweep was ever submitted."""
    return (folder / SUBMITTED).exists()
