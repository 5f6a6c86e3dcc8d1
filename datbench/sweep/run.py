"""A sweep at work on this machine: who does which units, and what is seen of it.

This process imports no torch. It starts an agent for each device (`datbench.sweep.agent`), starts
one again that was killed, and ends them all when it is told to end.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import DatbenchError, MeasurementError, UsageError, warn
from ..files import write_whole
from ..machine import visible_gpus
from ..process import Branch, wait_for
from ..records import read_json
from ..render.terminal import ProgressBars
from .plan import words_of
from .records import KINDS, OUTCOMES, RESULTS, AgentJob, Outcome, RunPlan, SweepCount, SweepState
from .store import PlannedUnit, Sweep, code, only_one, read_mark

RESTARTS = 3
"""How often an agent that was killed is started again without a new record."""


def shard_of(sweep: Sweep, shard: int, shards: int) -> Sequence[PlannedUnit]:
    """The units of one shard: every `shards`-th."""
    return sweep.units[shard - 1 :: shards]


def check_code(sweep: Sweep, choose: Callable[[str], str]) -> dict[str, str]:
    """The code that measures now; records of other code are dealt with.

    Args:
        choose: asked what becomes of them, ``keep``, ``redo`` or ``refuse``, with what differs.

    Raises:
        UsageError: they are refused.
    """
    now, path = code(), sweep.folder / "code.json"
    done = sweep.scan()
    try:
        before = read_json(path) if done and path.exists() else now
    except UsageError:
        before = {}
    if before != now:
        names = [name for name in now if before.get(name) != now[name]]
        apart = ", ".join(f"{name} {before.get(name)}, now {now[name]}" for name in names)
        said = f"{len(done)} records of {sweep.folder} were made by other code ({apart})"
        choice = choose(said)
        if choice == "refuse":
            raise UsageError(
                f"{said}: --changed keep leaves them, --changed redo measures them again."
            )
        if choice == "redo":
            for key, outcome in done.items():
                planned = sweep.by_key[key]
                if _code_of(sweep.path(planned, outcome)) != now:
                    sweep.retry(planned, outcome)
    write_whole(path, json.dumps(now) + "\n")
    return now


def _code_of(path: Path) -> object:
    with suppress(DatbenchError, KeyError, TypeError):
        return read_json(path)["unit"]["code"]
    return None


def run(sweep: Sweep, plan: RunPlan, now: dict[str, str]) -> None:
    """Do the pending units of a shard.

    Args:
        now: the code that measures, of `check_code`.

    Raises:
        UsageError: another process does the same shard, and this one is not to help.
        DatbenchError: records cannot be written, or an agent is killed again and again.
        KeyboardInterrupt: the units at work are pending again.
    """
    with ExitStack() as stack:
        try:
            handle = only_one(sweep.folder, f"shard-{plan.shard}-of-{plan.shards}")
            stack.callback(os.close, handle)
        except UsageError:
            # Whoever distributes shards may start one again whose process still works somewhere.
            if not plan.helps:
                raise
            warn(f"another process does shard {plan.name} too; the first record of a unit counts.")
        sweep.sweep_out()
        stack.callback(sweep.sweep_out)
        mine = shard_of(sweep, plan.shard, plan.shards)
        while True:
            done = sweep.scan()
            pending = [each for each in mine if each.key not in done]
            if pending:
                for group, gpus in _groups(pending):
                    _Driver(sweep, plan, now, group, gpus, len(mine)).work()
            # Contents are read once, at the end: a record that is damaged is measured again.
            broken = sweep.set_broken_aside() if len(sweep.scan()) == len(sweep.units) else []
            for said in broken:
                warn(f"a record was set aside, and is made again: {said}")
            if not broken:
                return


def _groups(pending: Sequence[PlannedUnit]) -> list[tuple[list[PlannedUnit], list[str]]]:
    """Units that are done at one time, and the GPUs that do them: one agent each."""
    on_gpus = [each for each in pending if each.specified["setting"]["device"] == "cuda"]
    gpus = visible_gpus() if on_gpus else []
    if len(gpus) < 2:
        return [(list(pending), gpus or [""])]
    others = [each for each in pending if each.specified["setting"]["device"] != "cuda"]
    return [*([(others, [""])] if others else []), (on_gpus, gpus)]


@dataclass
class _Agent:
    """An agent at its units."""

    name: str
    job: AgentJob
    left: dict[str, PlannedUnit]
    branch: Branch = field(init=False)
    stop: str | None = None  # at its end: which record could not be written; empty: all could
    deaths: int = 0  # since its last record
    done: int = 0

    def __post_init__(self) -> None:
        self.branch = Branch("datbench.sweep.agent:serve", self.job, forked=False)


class _Driver:
    """Agents at work on some units, and their progress."""

    def __init__(
        self,
        sweep: Sweep,
        plan: RunPlan,
        now: dict[str, str],
        units: Sequence[PlannedUnit],
        gpus: Sequence[str],
        of: int,
    ) -> None:
        self.sweep, self.units, self.of = sweep, units, of
        self.agents = []
        self.began = time.monotonic()
        for number, gpu in enumerate(gpus):
            share = {each.key: each for each in units[number :: len(gpus)]}
            if share:
                job = AgentJob(str(sweep.folder.absolute()), tuple(share), now, plan, gpu)
                name = gpu if len(gpus) > 1 else f"shard {plan.name}" if plan.shards > 1 else ""
                self.agents.append(_Agent(name, job, share))

    def work(self) -> None:
        """Wait until all agents have done their units; end them if this is interrupted."""
        with ProgressBars() as bars:
            try:
                while self.agents:
                    self._wait(bars)
            except BaseException:
                for agent in self.agents:
                    agent.branch.kill()
                    while agent.branch.poll() is None:
                        time.sleep(0.01)
                self._forget_tries()
                raise

    def _forget_tries(self) -> None:
        """Remove the marks of units that this process has interrupted: it is not their fault."""
        left = {key for agent in self.agents for key in agent.left}
        for key, paths in self.sweep.tries().items():
            for path in paths if key in left else ():
                if "reason" not in read_mark(path):
                    path.unlink(missing_ok=True)

    def _wait(self, bars: ProgressBars) -> None:
        wait_for([agent.branch for agent in self.agents], 0.2)
        for agent in list(self.agents):
            self._hear(agent, bars)
            if (code := agent.branch.poll()) is not None:
                self._hear(agent, bars)
                self._over(agent, code)

    def _hear(self, agent: _Agent, bars: ProgressBars) -> None:
        for said in agent.branch.hear():
            if "warning" in said:
                warn(said["warning"])
            elif "stop" in said:
                agent.stop = said["stop"]
            elif "begun" in said:
                self._show(agent, bars, words_of(self.sweep.by_key[said["begun"]].specified))
            elif "done" in said:
                agent.left.pop(said["done"], None)
                agent.deaths = 0
                agent.done += 1
                words = words_of(self.sweep.by_key[said["done"]].specified)
                happened = f"{said['outcome']}: {words} ({said['seconds']:.1f} s)"
                self._show(agent, bars, words, happened)

    def _show(self, agent: _Agent, bars: ProgressBars, words: str, line: str = "") -> None:
        passed = time.monotonic() - self.began
        left = passed / agent.done * len(agent.left) if agent.done else 0.0
        before = self.of - len(self.units) if len(self.agents) == 1 else 0
        total = before + agent.done + len(agent.left)
        bars.show(agent.name, before + agent.done, total, words, left, line)

    def _over(self, agent: _Agent, code: int) -> None:
        """An agent has ended: well, or it is started again for what it has left."""
        agent.branch.close()
        self.agents.remove(agent)
        if agent.stop is not None and code == 0:
            if agent.stop:
                raise DatbenchError(
                    f"could not write {agent.stop}; make room, and give the same command again."
                )
            if agent.left:
                warn(f"the time of this job is over; {len(agent.left)} units are pending.")
            return
        if code >= 0 or agent.deaths >= RESTARTS:
            ending = agent.branch.ending(code)
            raise MeasurementError(f"the process that does the units ended without them: {ending}.")
        left = {key: each for key, each in agent.left.items() if not self.sweep.outcome(each)}
        agent.done += len(agent.left) - len(left)
        if left:
            job = replace(agent.job, keys=tuple(left))
            again = _Agent(agent.name, job, left, deaths=agent.deaths + 1, done=agent.done)
            self.agents.append(again)


def state(sweep: Sweep, jobs: dict[str, str] | None = None) -> SweepState:
    """How far a sweep is."""
    done = sweep.scan()
    counts = []
    for kind in KINDS:
        keys = [each.key for each in sweep.units if each.kind == kind]
        if keys:
            ended: list[Outcome] = [done[key] for key in keys if key in done]
            tally = {outcome: ended.count(outcome) for outcome in set(ended)}
            counts.append(SweepCount(kind, len(keys), len(keys) - len(ended), **tally))
    at_work = []
    for key, paths in sweep.tries().items():
        mark = read_mark(paths[-1])
        if key in sweep.by_key and key not in done and "began" in mark and "reason" not in mark:
            words = words_of(sweep.by_key[key].specified)
            minutes = (time.time() - mark["began"]) / 60
            at_work.append(
                f"{words} (process {mark['process']} on {mark['host']}, begun "
                f"{minutes:.0f} minutes ago)"
            )
    return SweepState(str(sweep.folder), tuple(counts), tuple(at_work), jobs or {})


def retry(sweep: Sweep, which: Sequence[str]) -> list[PlannedUnit]:
    """Make units pending again that did not end well, or those that are named.

    Args:
        which: outcomes, or the beginnings of keys; none for failed, timeout and crashed.

    Raises:
        UsageError: one is neither.
    """
    done = sweep.scan()
    chosen: dict[str, Outcome] = {}
    for name in which or [each for each in OUTCOMES if each not in RESULTS]:
        found = {
            k: o for k, o in done.items() if o == name or (len(name) > 3 and k.startswith(name))
        }
        if not found and name not in OUTCOMES:
            raise UsageError(
                f"{name!r} is not an outcome ({', '.join(OUTCOMES)}) or the key of a unit that has "
                "a record."
            )
        chosen |= found
    for key, outcome in chosen.items():
        sweep.retry(sweep.by_key[key], outcome)
        sweep.end(sweep.by_key[key])
    return [sweep.by_key[key] for key in chosen]


def merge(sweep: Sweep, others: Sequence[Sweep]) -> int:
    """Add the records of other directories of the same sweep; how many.

    Records that cannot be read are set aside, in every directory.

    Raises:
        UsageError: one is another sweep.
    """
    for other in others:
        if not other.by_key.keys() <= sweep.by_key.keys():
            raise UsageError(f"{other.folder} is another sweep than {sweep.folder}.")
    for each in (sweep, *others):
        for said in each.set_broken_aside(thoroughly=True):
            warn(f"{each.folder}: a record was set aside, and its unit is pending: {said}")
    added, done = 0, sweep.scan()
    for other in others:
        for key, outcome in other.scan().items():
            if key not in done:
                planned = sweep.by_key[key]
                added += sweep.put(planned, outcome, read_json(other.path(planned, outcome)))
    return added
