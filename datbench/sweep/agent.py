"""The process that does a shard: it imports torch once, runs no operator, and forks each unit.

It is started by `datbench.sweep.run`, ends with it, and says each step as a line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ..errors import listening
from ..machine import alone_on, summary
from ..process import Branch, short, wait_for
from .records import AgentJob, Outcome
from .store import PlannedUnit, Sweep, read_mark
from .work import UnitsJob, ended, import_all, opened, record

TRIES = 3
"""How often a unit is tried whose process is killed from outside."""

VANISHED = 10
"""How often where this process vanished with it: its end says less about the unit."""

BATCH = 50
"""Units that are computed by one process: a fresh one now and then keeps what leaks small."""

OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that a process does not give itself; SIGKILL is also the kernel's where memory ends."""

MARGIN = 10.0
"""Seconds before the job's end in which nothing is begun."""

DISTURBED = 2
"""How often a unit is measured again that others disturbed."""


@dataclass
class _Child:
    """A process at some units; the first is at work."""

    branch: Branch
    units: deque[PlannedUnit]
    static: bool
    deadline: float
    lock: ExitStack
    began: float = field(default_factory=time.time)
    late: bool = False  # it was ended because its time was over


class Refused(Exception):
    """The system does not let records be written."""


def serve(job: AgentJob, say: Callable[[Any], None]) -> None:
    """Do the units of a shard, and say each step: ``ready``, ``begun``, ``done``, ``stop``."""
    if job.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.gpu
    # A check that starts CUDA here would make forks unsound.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    with listening(lambda text: say({"warning": text})):
        try:
            Agent(job, say).work()
        except Refused as error:
            say({"stop": str(error)})
        else:
            say({"stop": ""})


class Agent:
    """A shard at work.

    Args:
        say: told of each step.
    """

    def __init__(self, job: AgentJob, say: Callable[[Any], None]) -> None:
        self.job, self.say = job, say
        self.sweep: Sweep = opened(job.folder)
        self.children: list[_Child] = []
        self.around: dict[str, dict[str, Any]] = {}  # of what is computed, and of what is measured
        marks = self.sweep.tries()
        self.tries = {key: len(paths) for key, paths in marks.items()}
        # A mark without a reason is of an agent that vanished: its process told nobody.
        self.killed = {
            key: sum("reason" in read_mark(path) for path in paths) for key, paths in marks.items()
        }
        self.again: dict[str, int] = {}  # units that were disturbed

    def work(self) -> None:
        """Do all units, or those for which there is time.

        Raises:
            Refused: a record could not be written.
        """
        units = [self.sweep.by_key[key] for key in self.job.keys]
        units.sort(key=lambda each: self.tries.get(each.key, 0) > 0)  # what vanished comes last
        import_all({each.specified.get("model") for each in units})
        self.say({"ready": len(units)})
        for static, lanes in ((True, self.job.plan.jobs), (False, 1)):
            queue = deque(each for each in units if each.unit.static is static)
            try:
                while queue or self.children:
                    while queue and len(self.children) < lanes:
                        if self._left() < MARGIN:
                            queue.clear()
                            continue
                        self._start(queue, static)
                    self._wait(queue)
            finally:
                for child in self.children:
                    child.branch.kill()

    def _left(self) -> float:
        return self.job.plan.end - time.time()

    def _start(self, queue: deque[PlannedUnit], static: bool) -> None:
        """Begin the next units, if there is anything to do about them."""
        units: deque[PlannedUnit] = deque()
        share = -(-len(queue) // self.job.plan.jobs)
        while queue and len(units) < (min(share, BATCH) if static else 1):
            planned = queue.popleft()
            if (outcome := self.sweep.outcome(planned)) is not None:  # another agent was first
                self.say({"done": planned.key, "outcome": outcome, "seconds": 0.0})
            elif self._given_up(planned) or self._pruned(planned):
                continue
            else:
                units.append(planned)
        if not units:
            return
        first = units[0]
        lock = ExitStack()
        if not static:
            lock.enter_context(alone_on(first.unit.setting.device))
            if self.sweep.outcome(first) is not None:  # somebody did it while this waited
                lock.close()
                queue.appendleft(first)
                return
        for each in units:
            self.tries[each.key] = self.tries.get(each.key, 0) + 1
        job = UnitsJob(
            folder=self.job.folder,
            numbers=tuple(each.number for each in units),
            tries=tuple(self.tries[each.key] for each in units),
            code=self.job.code,
            shard=self.job.plan.name,
            timeout=self.job.plan.timeout,
            around=self.around.get(str(static), {}),
            last=self.again.get(first.key, 0) >= DISTURBED,
        )
        branch = Branch("datbench.sweep.work:attend", job)
        self.children.append(_Child(branch, units, static, self._deadline(first), lock))

    def _deadline(self, planned: PlannedUnit) -> float:
        timeout = self.job.plan.timeout or planned.timeout
        return time.time() + max(0.0, min(timeout, self._left() - MARGIN / 2))

    def _given_up(self, planned: PlannedUnit) -> bool:
        """Whether a unit was tried often enough; it is crashed then, with what is known."""
        killed, tried = self.killed.get(planned.key, 0), self.tries.get(planned.key, 0)
        if killed < TRIES and tried < VANISHED:
            return False
        marks = map(read_mark, self.sweep.tries().get(planned.key, []))
        reasons = [mark["reason"] for mark in marks if "reason" in mark]
        said = reasons[-1] if reasons else "its process vanished"
        self._put(planned, "crashed", f"{said} (tried {tried} times)", time.time())
        return True

    def _pruned(self, planned: PlannedUnit) -> bool:
        """Whether a smaller batch has run out of memory already."""
        smaller = self.sweep.smaller_out_of_memory(planned) if self.job.plan.prune else None
        if smaller is None:
            return False
        batch = smaller.specified["setting"]["batch"]
        reason = f"not run: batch {batch} ran out of memory"
        self._put(planned, "oom", reason, time.time(), {"pruned": smaller.key})
        return True

    def _put(
        self,
        planned: PlannedUnit,
        outcome: Outcome,
        reason: str,
        began: float,
        more: Mapping[str, Any] = {},
    ) -> None:
        """Add the record of a unit that no process has measured to its end."""
        around = self.around.get(str(planned.unit.static)) or summary()
        tries = (self.tries.get(planned.key, 1),)
        job = UnitsJob(self.job.folder, (planned.number,), tries, self.job.code, self.job.plan.name)
        rows = ended(planned.unit, outcome, reason)
        content = record(planned, job, outcome, short(reason), rows, around, began, more)
        try:
            self.sweep.put(planned, outcome, content)
        except OSError as error:
            raise Refused(_refusal(error)) from error
        self.sweep.end(planned)
        self.say({"done": planned.key, "outcome": outcome, "seconds": time.time() - began})

    def _wait(self, queue: deque[PlannedUnit]) -> None:
        """Wait for anything to happen, and deal with it."""
        nearest = min((child.deadline for child in self.children), default=0.0) - time.time()
        # A process whose pipes are closed ends in a moment.
        ending = any(len(child.branch.open) < 2 for child in self.children)
        wait_for(
            [child.branch for child in self.children], max(0.0, min(nearest, 0.01 if ending else 1))
        )
        for child in list(self.children):
            self._hear(child, queue)
            if time.time() > child.deadline and not child.late:
                child.late = True
                child.branch.kill()
            if (code := child.branch.poll()) is not None:
                self.children.remove(child)
                self._hear(child, queue)
                child.branch.close()
                child.lock.close()
                self._over(child, code, queue)

    def _hear(self, child: _Child, queue: deque[PlannedUnit]) -> None:
        """Deal with what a child says."""
        for said in child.branch.hear():
            if "environment" in said:
                self.around[str(child.static)] = said["environment"]
            elif "begun" in said:
                child.began, child.deadline = time.time(), self._deadline(child.units[0])
                self.say(said)
            elif "done" in said:
                child.units.popleft()
                self.say(said)
            elif "disturbed" in said:
                planned = child.units.popleft()
                self.again[planned.key] = self.again.get(planned.key, 0) + 1
                self.tries[planned.key] -= 1
                self.sweep.end(planned)
                queue.append(planned)
                others = said["others"]
                self.say({"warning": f"{others} other processes were on the GPU: measured again."})
            elif "refused" in said:
                raise Refused(said["refused"])

    def _over(self, child: _Child, code: int, queue: deque[PlannedUnit]) -> None:
        """A child has ended: what becomes of the units that it has not done."""
        if not child.units:
            return
        first, *others = child.units
        for each in reversed(others):
            self.tries[each.key] -= 1
            queue.appendleft(each)
        if (outcome := self.sweep.outcome(first)) is not None:  # it could not say so any more
            self.sweep.end(first)
            self.say({"done": first.key, "outcome": outcome, "seconds": 0.0})
            return
        timeout = self.job.plan.timeout or first.timeout
        if child.late and time.time() - child.began < timeout:  # the job's time, not the unit's
            self.sweep.end(first)
            return
        ending = child.branch.ending(None if child.late else code)
        reason = ending.outcome(timeout, first.unit.setting.device)[1]
        if child.late:
            self._put(first, "timeout", reason, child.began)
        elif code < 0 and -code in OUTSIDE:
            self._mark(first, reason)
            self.killed[first.key] = self.killed.get(first.key, 0) + 1
            queue.append(first)
        else:
            self._put(first, "crashed" if code < 0 else "failed", reason, child.began)

    def _mark(self, planned: PlannedUnit, reason: str) -> None:
        """Add to the mark of a try why it gave nothing."""
        marks = self.sweep.tries().get(planned.key)
        if marks is None:  # it was killed before it could leave one
            marks = [self.sweep.begin(planned, self.tries[planned.key])]
        said = read_mark(marks[-1]) | {"reason": reason}
        marks[-1].write_text(json.dumps(said), encoding="utf-8")


def _refusal(error: OSError) -> str:
    return f"{error.filename or 'a record'}: {error.strerror or error}"
