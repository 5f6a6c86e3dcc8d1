"""`datbench compare` on simulated machines: python -m benchmarks.compare_noise [NUMBER [LEVEL]].

Each machine is a way in which the level of a process strays from that of the process before it.
Prints how many of the comparisons say what: of A with itself, and with a B that takes 5 % longer.
"""

import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count

from datbench.compare.records import EXTENDED, LEVEL, PROCESSES, RunPlan, SideName
from datbench.compare.run import Pairs, compare, one_at_a_time
from datbench.timing.records import ProcessTiming, Timing

Noise = Callable[[random.Random], Iterator[float]]
"""Logarithms of how much longer each process in turn takes than the model alone would."""

SECONDS = 0.01
"""What the model alone takes."""

SLOWER = 1.05

COMPARISONS = 1000

BARS = RunPlan(8, 16)
"""Of the bars of `test_compare.py`, real and simulated: what a fifth of an hour or so affords."""


def normal(spread: float) -> Noise:
    return lambda rng: (rng.gauss(0, spread) for _ in count())


def outliers(rng: random.Random) -> Iterator[float]:
    while True:
        yield rng.gauss(0, 0.01) + (rng.uniform(0.1, 0.5) if rng.random() < 0.05 else 0)


def heavy_tails(rng: random.Random) -> Iterator[float]:
    """Student's t with two degrees of freedom: no variance."""
    while True:
        yield 0.01 * rng.gauss(0, 1) / math.sqrt(rng.expovariate(1))


def drift(step: float) -> Noise:
    return lambda rng: (rng.gauss(0, 0.01) + step * i for i in count())


def warming(rng: random.Random) -> Iterator[float]:
    for i in count():
        yield rng.gauss(0, 0.01) - 0.1 * math.exp(-i / 3)


def two_levels(rng: random.Random) -> Iterator[float]:
    """Where a process's code and data happen to lie."""
    while True:
        yield rng.gauss(0, 0.005) + rng.choice((0.0, 0.04))


def neighbour(rng: random.Random) -> Iterator[float]:
    """Another tenant who comes and goes, for some eight processes at a time."""
    busy = False
    while True:
        busy = busy != (rng.random() < 0.125)
        yield rng.gauss(0, 0.01) + 0.1 * busy


def remembering(memory: float) -> Noise:
    def levels(rng: random.Random) -> Iterator[float]:
        level = rng.gauss(0, 0.03)
        while True:
            yield level
            level = memory * level + math.sqrt(1 - memory**2) * rng.gauss(0, 0.03)

    return levels


def recurring(rng: random.Random) -> Iterator[float]:
    """Something that comes every fourth process, the period of a round."""
    phase = rng.randrange(4)
    for i in count():
        yield rng.gauss(0, 0.01) + 0.05 * ((i + phase) % 4 == 0)


MACHINES: dict[str, Noise] = {
    "quiet: levels scatter by 0.7 %": normal(0.007),
    "usual: levels scatter by 1.5 %": normal(0.015),
    "noisy: levels scatter by 4 %": normal(0.04),
    "one process in twenty takes 10 to 50 % longer": outliers,
    "heavy tails (Student's t, two degrees of freedom)": heavy_tails,
    "drift of 1 % a process": drift(0.01),
    "drift of 3 % a process": drift(0.03),
    "warming up: 10 %, fading over three processes": warming,
    "two levels 4 % apart": two_levels,
    "a neighbour takes 10 % for a while": neighbour,
    "levels of 3 % that remember (0.35)": remembering(0.35),
    "levels of 3 % that remember (0.9)": remembering(0.9),
    "every fourth process takes 5 % longer": recurring,
}


HARD = ("noisy: levels scatter by 4 %",)
"""Machines on which `BARS` finds fewer than eight of ten slowdowns by 5 %."""


def machine(noise: Iterator[float], slower: float) -> Pairs:
    """Processes of this machine one after the other; B's take `slower` times as long."""

    def sample(side: SideName) -> ProcessTiming:
        seconds = SECONDS * math.exp(next(noise)) * (slower if side == "B" else 1)
        timing = Timing((seconds,), (), 1, "interval", seconds, seconds, seconds, 0.95)
        return ProcessTiming("measured", timing=timing, seconds=3.0)

    return one_at_a_time(sample)


def verdicts(
    noise: Noise, slower: float, comparisons: int, plan: RunPlan, seed: int = 0
) -> Counter[str]:
    """How many comparisons say what."""
    rng = random.Random(seed)
    found: Counter[str] = Counter()
    for _ in range(comparisons):
        here = RunPlan(plan.processes, plan.most, plan.floor, plan.level, rng.getrandbits(32))
        pairs = machine(noise(rng), slower)
        found[compare(pairs, {"A": 1, "B": 1}, here).decision.verdict] += 1
    return found


def line(name: str, comparisons: int, plan: RunPlan) -> str:
    """A machine's row of the table."""
    same = verdicts(MACHINES[name], 1.0, comparisons, plan)
    slow = verdicts(MACHINES[name], SLOWER, comparisons, plan)
    figures = (
        same["faster"] + same["slower"],
        same["same"],
        same["ambiguous"],
        slow["slower"],
        slow["ambiguous"],
    )
    cells = " | ".join(f"{100 * figure / comparisons:.1f} %" for figure in figures)
    return f"| {name} | {cells} |"


def table(comparisons: int, plan: RunPlan) -> str:
    """Shares of the comparisons, a line for each machine."""
    lines = [
        "| machine | A/A: false | same | ambiguous | 5 % slower: found | ambiguous |",
        "|---|---|---|---|---|---|",
        *(line(name, comparisons, plan) for name in MACHINES),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else COMPARISONS
    level = float(sys.argv[2]) if len(sys.argv) > 2 else LEVEL
    plans = [BARS.looks(), *((PROCESSES, most) for most in (EXTENDED, PROCESSES, 2 * EXTENDED))]
    for processes, *_, most in plans:
        print(f"{processes} processes of each side, extended to {most} while ambiguous:\n")
        print(table(wanted, RunPlan(processes, most, level=level)), flush=True)
        print()
