"""Two sides that take turns: never both at once, and no end of one is the end of the other."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from datbench.errors import MeasurementError, UsageError
from datbench.process import Ending
from datbench.setting import How, Resolution, Setting
from datbench.timing import process
from datbench.timing.process import processors, time_pair
from datbench.timing.records import WAITED, ComparedSide, ProcessTiming, Timing
from datbench.timing.sample import time_calls
from datbench.timing.turns import (
    LEAST,
    REST_MOST,
    THREADS,
    TIRED,
    TURN,
    Pipes,
    Turns,
    threads_at_work,
)
from tests.processes import ctrl_c, gone

from . import odd_models

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes between processes are POSIX")

ODD = "tests.timing.odd_models"
SETTING = Setting(Resolution(32, 32), 2, device="cpu")
QUICK = How(budget=0.3, threads=1)


def ends() -> tuple[tuple[int, int], tuple[int, int]]:
    """Either side's, inward and outward."""
    to_first, from_second = os.pipe()
    to_second, from_first = os.pipe()
    return (to_first, from_first), (to_second, from_second)


@dataclass
class Alone:
    """One side; the other is what a test writes into its pipes."""

    inward: int
    outward: int
    theirs: tuple[int, int]

    def hears(self, what: bytes) -> None:
        os.write(self.theirs[1], what)

    def left_alone(self) -> None:
        for descriptor in self.theirs:
            os.close(descriptor)

    def turns(
        self, call: Any = lambda: None, wait: float = 9.0, begins: bool = True, **more: Any
    ) -> Turns:
        return Turns(Pipes(self.inward, self.outward, begins), call, lambda: wait, **more)


@pytest.fixture
def alone() -> Iterator[Alone]:
    (inward, outward), theirs = ends()
    yield Alone(inward, outward, theirs)
    for descriptor in (inward, outward, *theirs):
        with suppress(OSError):  # a test has closed it
            os.close(descriptor)


def sampled(turns: Turns, seconds: float, budget: float = 60.0) -> Timing:
    """Samples of a call that takes this long, until the budget ends; then its end is told."""
    timing = time_calls(
        lambda: time.sleep(seconds),
        budget=budget,
        width=0.0,
        clock=turns.clock,
        between=turns.sampled,
    )
    turns.end()
    assert timing.stopped == "budget"
    return timing


def both_sides(side: Callable[[str, Pipes], None]) -> None:
    first, second = ends()
    threads = [
        threading.Thread(target=side, args=(name, Pipes(*pipes, name == "A")), daemon=True)
        for name, pipes in (("A", first), ("B", second))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_only_one_side_works_at_a_time_and_both_end_together() -> None:
    """B's calls are twice as long: its turns are, and its share of the budget is used up first."""
    at_work: list[str] = []
    both_at_work: list[str] = []
    order: list[str] = []
    taken: dict[str, int] = {}
    lengths = {"A": 0.011, "B": 0.022}

    def side(name: str, pipes: Pipes) -> None:
        def call() -> None:
            at_work.append(name)
            both_at_work.extend(at_work[1:])
            order.append(name)
            time.sleep(lengths[name])
            at_work.remove(name)

        turns = Turns(pipes, call, lambda: 20.0, working=lambda: False)
        turns.meet()
        timing = time_calls(call, budget=0.5, width=0.0, clock=turns.clock, between=turns.sampled)
        turns.end()
        taken[name] = turns.taken
        assert timing.stopped == "budget"

    both_sides(side)
    assert both_at_work == []
    assert order[0] == "A"
    assert min(taken.values()) >= 2
    assert abs(taken["A"] - taken["B"]) <= 1
    # A, too, had no more turns than B: it was not left alone with the rest of its budget.
    assert sum(one != other for one, other in pairwise(order)) >= 2 * min(taken.values()) - 2
    assert order.count("A") <= taken["A"] * (1 + LEAST)


def test_the_time_of_the_other_side_is_not_this_ones(alone: Alone) -> None:
    """The untimed call takes 1 ms, samples 2 or 20, and every wait for the other side 10."""
    now = [0.0]

    def passes(milliseconds: float) -> float:
        now[0] += milliseconds / 1000
        return milliseconds

    pipes = Pipes(alone.inward, alone.outward, True)
    turns = Turns(
        pipes, lambda: passes(1), lambda: passes(10), lambda: now[0], working=lambda: False
    )
    alone.hears(b"....")
    turns.meet()
    samples = 10 * [2] + LEAST * [20] + [2]
    for sample in samples:
        passes(sample)
        turns.sampled()
    assert turns.taken == 3
    own = sum(samples) + 1  # no untimed call where a call takes as long as a turn
    assert turns.clock() == pytest.approx(own / 1000)
    assert now[0] == pytest.approx((own + 3 * 10) / 1000)


def test_it_rests_until_its_threads_do(alone: Alone) -> None:
    """Threads that look for work after an operator would slow the other side down."""
    working = iter([True, True, False])
    alone.hears(b"...")
    turns = alone.turns(working=lambda: next(working))
    turns.meet()
    time.sleep(TURN)
    for _ in range(LEAST):
        turns.sampled()
    assert next(working, None) is None


@pytest.mark.skipif(not THREADS.exists(), reason="only Linux tells what every thread does")
def test_a_thread_at_work_is_seen() -> None:
    ended: list[float] = []
    begun = threading.Event()
    block = bytes(64 << 20)

    def work() -> None:
        begun.set()
        hashlib.sha256(block)  # without Python's lock
        ended.append(time.perf_counter())

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    time.sleep(0.002)
    while threads_at_work():
        time.sleep(0.001)
    rested = time.perf_counter()
    thread.join()
    assert rested > ended[0] - 0.005


@pytest.mark.parametrize("restless", [False, True])
def test_threads_that_never_rest_are_not_waited_for_for_ever(alone: Alone, restless: bool) -> None:
    looks: list[None] = []

    def working() -> bool:
        looks.append(None)
        return restless

    alone.hears(b"......")
    busy = time.perf_counter if restless else lambda: 0.0
    turns = alone.turns(busy=busy, working=working)
    turns.meet()
    begin, own = time.perf_counter(), turns.clock()
    for turn in range(5):
        time.sleep(TURN)
        for _ in range(LEAST):
            turns.sampled()
        if turn == TIRED - 1:
            asked = len(looks)
    assert turns.restless == restless
    passed, own = time.perf_counter() - begin, turns.clock() - own
    if restless:
        assert len(looks) == asked  # it has given up
        assert passed - own > TIRED * REST_MOST  # which was no time of its own
    else:
        assert len(looks) == 5


def test_a_budget_of_one_call_leaves_the_other_side_its_own() -> None:
    samples: dict[str, int] = {}

    def side(name: str, pipes: Pipes) -> None:
        turns = Turns(pipes, lambda: None, lambda: 20.0, working=lambda: False)
        turns.meet()
        timing = sampled(turns, 0.03, budget=0.01)
        samples[name] = len(timing.samples)

    both_sides(side)
    assert samples == {"A": 1, "B": 1}


@pytest.mark.parametrize("last", [b"e", b""])
def test_where_the_other_side_ends_or_crashes_this_one_ends_too(alone: Alone, last: bytes) -> None:
    alone.hears(b"." + last)
    alone.left_alone()
    turns = alone.turns()
    turns._tell = lambda what: None  # type: ignore[method-assign]  # a pipe that is still there
    turns.meet()
    assert 0.004 <= sampled(turns, 0.004).median < 1
    assert turns.taken == 1


def test_what_ends_before_the_first_turn_leaves_nothing_to_compare(alone: Alone) -> None:
    with pytest.raises(MeasurementError, match=WAITED):  # it does not give the turn back
        alone.turns(wait=0.05).meet()
    alone.left_alone()
    turns = alone.turns(begins=False)
    with pytest.raises(MeasurementError, match=WAITED):
        turns.meet()
    turns.end()


def test_pipes_that_are_gone_say_what_to_do(alone: Alone) -> None:
    for descriptor in (alone.inward, alone.outward):
        os.close(descriptor)
    with pytest.raises(MeasurementError, match=r"is gone \(Bad file descriptor\); use --one-at-a"):
        alone.turns().meet()


def test_samples_outlive_a_side_that_hangs(alone: Alone) -> None:
    alone.hears(b".")
    turns = alone.turns(wait=0.05)
    turns.meet()
    assert sampled(turns, 0.012).samples


# Processes.


def odd(name: str, how: How = QUICK) -> ComparedSide:
    return ComparedSide(f"{ODD}:{name}", SETTING, how)


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.usefixtures("_at_the_root")
def test_a_pair_on_one_processor_without_standard_input() -> None:
    """What is closed in the parent is nothing to the pipes."""
    before, kept = descriptors(), os.dup(0)
    os.close(0)
    try:
        first, second = time_pair(odd("takes_longer"), odd("takes_a_while"), 60.0, 3)
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert descriptors() == before
    for timing in (first, second):
        assert (timing.outcome, timing.reason, timing.threads) == ("measured", None, 1)
        assert timing.turns >= 2
        assert not timing.restless
        assert timing.timing.stopped == "budget"
    assert first.timing.median > second.timing.median >= 0.004
    assert first.processors == second.processors
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1:
        assert len(first.processors) == 1  # they are bound; the model looks too


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (Ending(-9, "").outcome(60.0, "cpu"), "try a smaller batch; "),
        (("out of memory", "too much"), "too much; "),
        (Ending(3, "").outcome(60.0, "cpu"), None),
    ],
)
def test_one_side_that_takes_too_much_memory_may_be_one_too_many(
    ended: tuple[Any, str], said: str | None
) -> None:
    found = process._explained(ProcessTiming(*ended))
    if said is None:
        assert found == ProcessTiming(*ended)
        return
    assert (found.reason or "").endswith(
        f"{said}both sides were there at once: --one-at-a-time has one there"
    )


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _at_the_root: None) -> Path:
    """A file that a model writes in its process."""
    monkeypatch.setenv(odd_models.BEGUN, str(tmp_path / "begun"))
    return tmp_path / "begun"


def test_a_child_of_the_model_holds_nobody_and_does_not_outlive_it(begun: Path) -> None:
    """A fork has copies of all descriptors: the other side would never see the pipe's end."""
    long = How(budget=30.0, threads=1)  # a hundred calls, on a busy machine too
    good, bad = time_pair(odd("plain", long), odd("leaves_a_child", long), 60.0)
    assert good.outcome == "measured"
    assert (bad.outcome, bad.reason) == ("crashed", "exit code 3")
    assert gone(int(begun.read_text())), "the child lives on"


def test_ctrl_c_keeps_the_samples_of_both(begun: Path) -> None:
    side = odd("says_that_it_has_begun", How(budget=60.0, threads=1))
    with ctrl_c(begun.exists):
        both = time_pair(side, side, 90.0)
    for timing in both:
        assert timing.outcome == "interrupted"
        assert timing.timing.stopped == "interrupted"
        assert timing.timing.samples


def test_an_interpreter_that_is_not_there_leaves_nothing_open(tmp_path: Path) -> None:
    before = descriptors()
    gone = replace(odd("plain"), python=str(tmp_path / "no_python"))
    for sides in ((gone, odd("plain")), (odd("plain"), gone)):
        with pytest.raises(
            UsageError, match="no_python: No such file or directory; name a Python interpreter"
        ):
            time_pair(*sides, 60.0)
    deadline = time.monotonic() + 5  # what read the other side's errors closes its pipe meanwhile
    while descriptors() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert descriptors() == before


def test_a_machine_without_descriptors_is_no_wrong_interpreter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe, made = os.pipe, descriptors()
    calls = iter([pipe])

    def one_pipe() -> tuple[int, int]:
        if (real := next(calls, None)) is None:
            raise OSError(24, "Too many open files")
        return real()

    monkeypatch.setattr(os, "pipe", one_pipe)
    said = "no process can be started: Too many open files"
    with pytest.raises(MeasurementError, match=said):
        time_pair(odd("plain"), odd("plain"), 60.0)
    monkeypatch.undo()
    assert descriptors() == made


def test_a_version_that_knows_no_turns_is_refused(made_up: Callable[..., Path]) -> None:
    old = replace(odd("plain"), source=str(made_up("old", outcome="measured", reason=None)))
    first, second = time_pair(old, old, 60.0)
    assert first.outcome == second.outcome == "failed"
    assert "does not know how to take turns; use --one-at-a-time" in first.reason


# Which processors.


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with four cores of two processors each; the last core is not ours."""
    for number in range(8):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        siblings = f"{number % 4},{number % 4 + 4}\n"
        (folder / "thread_siblings_list").write_text(siblings)
    monkeypatch.setattr(process, "TOPOLOGY", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 4, 5, 6}, raising=False)
    return tmp_path


def test_processors_are_of_different_cores_and_change_from_pair_to_pair(eight: Path) -> None:
    one, two = How(threads=1), How(threads=2)
    assert [processors(one, "cpu", i) for i in range(4)] == [(0,), (1,), (2,), (0,)]
    assert [processors(two, "cpu", i) for i in range(3)] == [(0, 1), (1, 2), (2, 0)]
    assert processors(How(threads=4), "cpu", 0) == ()
    assert processors(How(), "cpu", 0) == ()
    assert processors(one, "cuda:0", 0) == ()


def test_without_a_topology_every_processor_is_a_core(
    eight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "TOPOLOGY", eight / "nowhere")
    assert len(processors(How(threads=6), "cpu", 0)) == 6
    monkeypatch.delattr(os, "sched_getaffinity")
    assert processors(How(threads=1), "cpu", 0) == ()
