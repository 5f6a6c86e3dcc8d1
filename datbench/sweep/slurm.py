"""A sweep on a Slurm cluster: arrays of jobs whose tasks are shards.

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
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ..errors import DatbenchError, MeasurementError, UsageError, warn
from ..files import write_whole
from ..process import command
from ..render.terminal import ProgressBars
from .records import RunPlan
from .run import shard_of
from .store import Sweep, only_one

PATIENCE = 60.0
"""Seconds that a command of Slurm's may take, and that its job may take to be seen then."""

SILENCE = 600.0
"""Seconds for which Slurm may not answer while jobs are waited for."""

POLL = 5.0
"""Seconds between two looks at the records and the queue."""

SUBMISSIONS = 3
"""How often a shard is submitted without any new record before this gives up."""

SUBMITTED = "slurm.jsonl"

ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED TIMEOUT"
    " REVOKED".split()
)
"""States of jobs that are over, of squeue(1)."""

OURS = ("array", "clusters", "job-name", "parsable", "test-only", "wait", "wrap")
"""Options of sbatch that are not passed on: with another value the jobs would not be found."""


@dataclass(frozen=True)
class CommandAnswer:
    """What a command of Slurm's said."""

    code: int | None  # None where it did not answer in time
    text: str
    errors: str

    @property
    def complaint(self) -> str:
        """What is wrong, in a line without a stop."""
        lines = [re.sub(r"^\w+: (error: )?", "", line) for line in self.errors.splitlines()]
        said = [line.strip().rstrip(".") for line in lines if not line.startswith("Try ")]
        return "; ".join(filter(None, said)) or f"exit code {self.code}"


@dataclass(frozen=True)
class ShardJob:
    """A task of an array, as squeue lists it."""

    name: str  # 12_3
    shard: int
    shards: int
    state: str
    why: str  # it waits; "None" where it does not

    @property
    def at_work(self) -> bool:
        """Whether it runs, or may still run."""
        return self.state not in ENDED

    def __str__(self) -> str:
        why = f" ({self.why})" if self.state == "PENDING" and self.why != "None" else ""
        return f"{self.state.lower()}{why}"


def ask(*words: str) -> CommandAnswer:
    """Run a command of Slurm's.

    Raises:
        UsageError: it is not installed.
    """
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=PATIENCE
        )
    except OSError:
        raise UsageError(
            f"{words[0]} is not here: run this where Slurm's commands are, or without "
            "--engine slurm."
        ) from None
    except subprocess.TimeoutExpired:
        return CommandAnswer(None, "", f"{words[0]} did not answer in {PATIENCE:g} s")
    return CommandAnswer(done.returncode, done.stdout.strip(), done.stderr.strip())


def options_of(pairs: Sequence[str]) -> dict[str, Any]:
    """What ``--slurm partition=gpu`` says; ``--slurm exclusive`` is a flag."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if name == "setup" and name in found:
            value = f"{found[name]}\n{value}"
        found[name] = value if equals else True
    return found


def arguments_of(options: Mapping[str, Any]) -> list[str]:
    """Options as sbatch takes them.

    Raises:
        UsageError: a name is not an option's, or not for the user to give; a value is not plain.
    """
    found = []
    for name, value in options.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]+", name):
            raise UsageError(f"slurm {name!r}: write a long option of sbatch, as in partition=gpu.")
        if name in OURS:
            raise UsageError(
                f"slurm {name!r} is set by the sweep; another cluster: SLURM_CLUSTERS=NAME in the "
                "environment, fewer tasks: --jobs N."
            )
        if isinstance(value, (Mapping, list)):
            raise UsageError(f"slurm {name!r}: must be text, a number, true or false.")
        if value is not False:
            found.append(f"--{name}" if value is True else f"--{name}={value}")
    return found


class Cluster:
    """The jobs of one sweep on Slurm.

    Args:
        options: of sbatch, by their long names; ``setup`` is lines of shell before the work.

    Raises:
        UsageError: an option cannot be passed on.
    """

    def __init__(self, sweep: Sweep, options: Mapping[str, Any]) -> None:
        self.sweep = sweep
        setup = options.get("setup", "")
        self.setup = "\n".join(map(str, setup)) if isinstance(setup, list) else str(setup)
        self.options = arguments_of({k: v for k, v in options.items() if k != "setup"})
        self.path = sweep.folder / SUBMITTED
        self.shards = 0  # of the arrays
        self.tried: dict[int, tuple[int, int]] = {}  # of a shard: its records then, submissions
        self.cancelled: set[int] = set()  # shards whose job somebody has cancelled
        self.shown: dict[int, tuple[str, int]] = {}  # of a shard: its state, its records

    def run(self, plan: RunPlan) -> None:
        """Submit what is pending and wait for it; a shard that ends without its records, again.

        Ctrl-C leaves the jobs at work; the same command finds them.

        Raises:
            UsageError: Slurm is not here, or refuses the job; another process waits for it.
            MeasurementError: Slurm does not answer, jobs are cancelled, or end without records.
        """
        handle = only_one(self.sweep.folder, "slurm")
        try:
            with ProgressBars() as bars:
                self._run(plan, bars)
        except KeyboardInterrupt:
            warn(f"jobs stay at work; `datbench sweep cancel {self.sweep.folder}` ends them.")
            raise
        finally:
            self.sweep.sweep_out()
            os.close(handle)

    def _run(self, plan: RunPlan, bars: ProgressBars) -> None:
        began, units = time.monotonic(), len(self.sweep.units)
        before, cancels = len(self.sweep.scan()), self._cancels()
        old: set[str] | None = None  # jobs that had ended before
        while True:
            # The queue first: what a job did before it left the queue is seen then.
            jobs, done = self._queue(), self.sweep.scan()
            if len(done) == units:
                if not self.sweep.set_broken_aside():
                    return
                continue  # jobs may be at work at them: the queue is asked again
            at_work = [job for job in jobs if job.at_work]
            over = {job.name for job in jobs if not job.at_work}
            old = over if old is None else old
            self.shards = self.shards or (at_work[-1].shards if at_work else self._most(plan.jobs))
            new = [j.shard for j in jobs if j.state == "CANCELLED" and j.name not in old]
            self.cancelled.update(range(1, self.shards + 1) if self._cancels() > cancels else new)
            if ready := self._ready(at_work, done):
                self.submit(plan, ready)
                continue
            if not at_work:
                why = "were cancelled" if self.cancelled else "end without new records"
                raise MeasurementError(
                    f"jobs of {self.sweep.folder} {why}; {units - len(done)} units are pending; "
                    f"{self.sweep.folder / 'log'} has what the jobs said."
                )
            new_records = len(done) - before
            passed = time.monotonic() - began
            left = passed / new_records * (units - len(done)) if new_records > 0 else 0.0
            self._show(bars, done, at_work, left)
            time.sleep(POLL)

    def _queue(self) -> list[ShardJob]:
        """The jobs that squeue lists; waits while it is silent and records are missing.

        Raises:
            MeasurementError: it is silent for too long.
        """
        asked = time.monotonic()
        for attempt in count():
            jobs = self.jobs()
            if jobs is not None or len(self.sweep.scan()) == len(self.sweep.units):
                break
            said = "squeue does not answer; jobs may be at work"
            if time.monotonic() - asked > SILENCE:
                raise MeasurementError(f"{said}: give the same command again later.")
            if attempt == 0:
                warn(f"{said}, so this waits.")
            time.sleep(POLL)
        return jobs or []

    def _ready(self, at_work: Sequence[ShardJob], done: Mapping[str, Any]) -> list[int]:
        """Shards to submit: with pending units, without a job, not cancelled, not hopeless."""
        if any(job.shards != self.shards for job in at_work):
            return []  # parts of another number have units of theirs
        busy, ready = {job.shard for job in at_work} | self.cancelled, []
        for shard, (finished, units) in self._finished(done).items():
            records, times = self.tried.get(shard, (finished, 0))
            times = times if finished == records else 0
            if finished < units and shard not in busy and times < SUBMISSIONS:
                self.tried[shard] = finished, times + 1
                ready.append(shard)
        return ready

    def _finished(self, done: Mapping[str, Any]) -> dict[int, tuple[int, int]]:
        """How many units of each shard have a record, and how many it has."""
        found = {}
        for shard in range(1, self.shards + 1):
            mine = shard_of(self.sweep, shard, self.shards)
            found[shard] = sum(each.key in done for each in mine), len(mine)
        return found

    def _show(
        self, bars: ProgressBars, done: Mapping[str, Any], jobs: Iterable[ShardJob], left: float
    ) -> None:
        """Show every shard; as a plain line if it is in another state or has new records."""
        states = {job.shard: str(job) for job in jobs}
        for shard, (finished, units) in self._finished(done).items():
            state = states.get(shard, "finished" if finished == units else "ended")
            known = self.shown.get(shard, ("", 0))
            self.shown[shard] = state, finished
            what = "" if known == (state, finished) else "ok" if known[0] == state else state
            line = f"{what}, {len(done)}/{len(self.sweep.units)} of all" if what else ""
            bars.show(f"shard {shard}/{self.shards}", finished, units, state, left, line)

    def _most(self, wanted: int) -> int:
        """As many shards as an array may have, and as there are units."""
        devices = {each.specified["setting"]["device"] for each in self.sweep.units}
        gpus = [each for each in self.options if re.match("--(gres=gpu|gpus)", each)]
        if gpus and devices - {"meta"} == {"cpu"}:  # the default where this command is given
            warn(f'the jobs ask for {gpus[0]}, and no unit for a GPU: write device = "cuda".')
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config").text)
        # slurm.conf(5): the largest index is one less than MaxArraySize, which is 1001 by default.
        most = max(1, (int(found[1]) if found else 1001) - 1)
        if wanted > most:
            warn(f"an array of this cluster has at most {most} tasks (MaxArraySize), not {wanted}.")
        return min(wanted, most, len(self.sweep.units))

    def submit(self, plan: RunPlan, shards: Iterable[int]) -> None:
        """Submit an array of some shards; or find that Slurm did not take it.

        Raises:
            UsageError: Slurm refuses it.
            MeasurementError: Slurm cannot be reached.
        """
        token = f"datbench-{secrets.token_hex(4)}"
        log = self.sweep.folder.absolute() / "log"
        script = self.sweep.folder.absolute() / "slurm.sh"
        try:
            log.mkdir(exist_ok=True)  # without it a job ends at once and says nothing
        except OSError as error:
            raise DatbenchError(f"could not make {log}: {error.strerror}.") from error
        write_whole(script, self.script(plan))
        # Written before: if sbatch or this is killed, the token still finds the job.
        self._note(token=token, shards=self.shards)
        answer = ask(
            *("sbatch", "--parsable", "--requeue", "--open-mode=append", f"--job-name={token}"),
            *(f"--array={','.join(map(str, shards))}", f"--output={log}/%A_%a.log"),
            *self.options,
            str(script),
        )
        if answer.code == 0:
            return
        if "contact" in answer.errors:
            raise MeasurementError(f"Slurm cannot be reached: {answer.complaint}.")
        if answer.code is not None and "timed out" not in answer.errors.lower():
            raise UsageError(f"sbatch refuses the jobs: {answer.complaint}.")
        # This is said of jobs that were accepted, too.
        deadline = time.monotonic() + PATIENCE
        while not self.jobs(token):
            if time.monotonic() > deadline:
                warn(f"Slurm did not take the jobs: {answer.complaint}.")
                return
            time.sleep(POLL)

    def script(self, plan: RunPlan) -> str:
        """What each task runs."""
        more = [] if plan.prune else ["--no-prune"]
        more += [] if plan.timeout is None else ["--timeout", f"{plan.timeout:g}"]
        start = command("from datbench.cli.main import entry; entry()")
        folder = str(self.sweep.folder.absolute())
        # In place of the shell: a signal of the scheduler's goes to the program.
        return (
            f"#!/bin/bash\n{self.setup}\n"
            f"exec {shlex.join([*start, 'sweep', 'run', folder, '--changed', 'keep', *more])} "
            f'--shard "$SLURM_ARRAY_TASK_ID/{self.shards}" --jobs "${{SLURM_CPUS_PER_TASK:-1}}"\n'
        )

    def jobs(self, token: str | None = None) -> list[ShardJob] | None:
        """Jobs that squeue lists, a while after their end too; None where it does not answer.

        Args:
            token: of one array; all arrays of the sweep where None.
        """
        arrays = {each["token"]: each["shards"] for each in self._notes() if "token" in each}
        if not arrays:
            return []
        names = ",".join([token] if token else arrays)
        answer = ask(
            *("squeue", "--noheader", "--array", "--states=all", f"--name={names}"),
            "--format=%i|%j|%T|%r",
        )
        if answer.code != 0:
            return None
        found = []
        for line in answer.text.splitlines():
            name, array, state, why = [*map(str.strip, line.split("|")), "", "", ""][:4]
            shard = name.rpartition("_")[2]
            if array in arrays and shard.isdecimal():  # else a line such as "CLUSTER: name"
                found.append(ShardJob(name, int(shard), arrays[array], state, why))
        return found

    def states(self) -> dict[str, str]:
        """What the jobs at work do, for people."""
        try:
            jobs = self.jobs()
        except UsageError:  # this machine does not have Slurm
            jobs = None
        if jobs is None:
            return {"Slurm": "does not answer"}
        return {job.name: f"{job}, shard {job.shard}/{job.shards}" for job in jobs if job.at_work}

    def cancel(self) -> int:
        """End all jobs of the sweep; how many there were.

        Raises:
            MeasurementError: Slurm does not answer.
        """
        jobs = self.jobs()
        if jobs is None:
            raise MeasurementError("squeue does not answer; try again later.")
        names = [job.name for job in jobs if job.at_work]
        self._note(cancelled=names)  # a process that waits for them submits none again
        if names:
            answer = ask("scancel", "--full", *names)
            left = [job for job in self.jobs() or [] if job.at_work and job.state != "COMPLETING"]
            if answer.code != 0 and left:  # else they ended at that moment
                raise MeasurementError(f"scancel failed: {answer.complaint}.")
        return len(names)

    def _note(self, **note: Any) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(note)}\n")  # a line before may be cut off
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DatbenchError(f"could not write {self.path}: {error.strerror}.") from error

    def _notes(self) -> list[dict[str, Any]]:
        """Arrays that were submitted, or that may have been; a line cut off is none."""
        found = []
        for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
            try:
                found.append(dict(json.loads(line)))
            except ValueError:
                continue
        return found

    def _cancels(self) -> int:
        return sum("cancelled" in each for each in self._notes())


def end_of_job() -> float:
    """When the job that this runs in ends, in seconds since the epoch; infinity outside of one."""
    told = os.environ.get("SLURM_JOB_END_TIME", "")
    if told.isdecimal():
        return float(told)
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return float("inf")
    if "SLURM_ARRAY_TASK_ID" in os.environ:  # one number may stand for the whole array
        job = "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}".format_map(os.environ)
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
