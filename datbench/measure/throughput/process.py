"""One fresh process that times a model, and what its end is called."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ...errors import DatbenchError, MeasurementError, UsageError
from ...measurements import Ceilings, Scatter, Timing
from ...timings import TIME_MODES, UNFINISHED, How, ProcessTiming, ProtocolTiming, Telemetry
from ...types import Setting
from ...units import printable
from ..memory.gpu import check_present
from ..processes import ENDED, Ending, Interrupted, ask

TIMEOUT = 300.0
"""Seconds that one process may take, its start and `import torch` included."""

PATIENCE = 15.0
"""Seconds that a process has after Ctrl-C to give the samples that it has."""

LONGEST = 300
"""Characters of a reason that are kept."""

SHORT_OF_MEMORY = "for lack of the machine's own memory"

WORKER = "datbench.measure.throughput.worker"


def time_in_process(
    name: str,
    setting: Setting,
    how: How,
    *,
    timeout: float = TIMEOUT,
    python: str | None = None,
    source: Path | None = None,
    ceilings: bool = False,
    protocols: tuple[str, ...] = (),
) -> ProcessTiming:
    """Time a model in a fresh process. What goes wrong there is an outcome, not an error.

    Ctrl-C is an outcome too: the process is asked for the samples that it has.

    Args:
        python: another interpreter than this one, with a datbench of its own.
        source: a checkout of the project to use instead of the installed one.
        ceilings: measure the machine's after the model.
        protocols: published ones to follow after the model was timed.

    Raises:
        UsageError: the device is not here, or the model cannot be run so on any.
    """
    check(setting, how)
    job = {
        **asked(name, setting, how, timeout),
        "ceilings": ceilings,
        "protocols": list(protocols),
    }
    begin = time.perf_counter()
    interrupted = False
    answer: dict[str, Any] | Ending
    try:
        answer = ask(WORKER, job, timeout, python=python, source=source, patience=PATIENCE)
    except Interrupted as error:
        answer, interrupted = error.answer, True
    except KeyboardInterrupt:  # the second one
        answer, interrupted = Ending(None, ""), True
    except OSError as error:
        raise not_started(error, python) from error
    return outcome(answer, interrupted, timeout, setting.device, time.perf_counter() - begin)


def not_started(error: OSError, *pythons: str | None) -> DatbenchError:
    """What is wrong where no process could be started: an interpreter, or the machine."""
    if error.filename is not None and error.filename in pythons:
        return UsageError(f"{error.filename}: {error.strerror}; name a Python interpreter.")
    return MeasurementError(f"no process can be started: {error.strerror or error}.")


def asked(name: str, setting: Setting, how: How, timeout: float) -> dict[str, Any]:
    """What a worker is told in any case."""
    return {
        "model": name,
        "setting": asdict(setting),
        "how": asdict(how),
        "end": time.time() + timeout,
    }


def outcome(
    answer: dict[str, Any] | Ending,
    interrupted: bool,
    timeout: float,
    device: str,
    seconds: float,
) -> ProcessTiming:
    """What a process gave, or how it ended without."""
    if interrupted:
        return _interrupted(answer, seconds)
    if isinstance(answer, Ending):
        return ended(answer, timeout, device, seconds)
    return filled(answer, seconds)


def check(setting: Setting, how: How) -> None:
    """Whether this can be run here at all.

    Raises:
        UsageError: it cannot; the message says why.
    """
    kind = setting.device.split(":")[0]
    if kind not in ("cuda", "cpu"):
        raise UsageError(f"time is measured on cuda or on cpu, not on {setting.device!r}.")
    if how.mode not in TIME_MODES:
        raise UsageError(f"mode {how.mode!r}: choose one of {', '.join(TIME_MODES)}.")
    if how.threads is not None and how.threads < 1:
        raise UsageError(f"threads {how.threads}: write a number from 1.")
    if not all(0 < value < math.inf for value in (how.budget, how.width)):
        raise UsageError("budget and width are finite numbers above 0.")
    if how.flush and kind != "cuda":
        raise UsageError("the level-2 cache is flushed on a GPU only; use --device cuda.")
    try:
        check_present(setting.device)
    except UsageError as error:
        raise UsageError(
            f"device {setting.device!r} is not available here; use cpu, or cuda where a GPU is."
        ) from error
    if how.compile:
        check_compiler(kind)


def check_compiler(kind: str, env: Mapping[str, str] = os.environ) -> None:
    """Whether `torch.compile` finds what it compiles with.

    Raises:
        UsageError: it does not.
    """
    if kind == "cpu":
        usual = "clang++" if sys.platform == "darwin" else "g++"
        compiler = (env.get("CXX", "").split() or [usual])[0]
        if shutil.which(compiler) is None:
            raise UsageError(
                f"torch.compile needs a C++ compiler on a CPU, and there is no {compiler!r} here; "
                "install one, name it in CXX, or leave out --compile."
            )
    elif importlib.util.find_spec("triton") is None:
        raise UsageError(
            "torch.compile needs triton on a GPU, which is not installed; install it or leave out "
            "--compile."
        )


def _interrupted(answer: dict[str, Any] | Ending, seconds: float) -> ProcessTiming:
    if isinstance(answer, Ending) or "timing" not in answer:
        return ProcessTiming("interrupted", "no sample was finished", seconds=seconds)
    return filled({**answer, "outcome": "interrupted", "reason": "by Ctrl-C"}, seconds)


def ended(ending: Ending, timeout: float, device: str, seconds: float) -> ProcessTiming:
    """What a process without an answer is called."""
    if ending.code is None:
        return ProcessTiming("timed out", f"did not finish in {timeout:g} s", seconds=seconds)
    reason = str(ending)
    if ending.code == -9:  # the kernel's way when the machine's own memory is used up
        reason += f", probably {SHORT_OF_MEMORY}"
        if device.startswith("cpu"):
            reason += "; try a smaller batch"
    return ProcessTiming("crashed", short(reason), seconds=seconds)


def filled(answer: Mapping[str, Any], seconds: float) -> ProcessTiming:
    """What a worker answered, as values. Another version's worker may know less, or more."""
    timing, limits, telemetry = (answer.get(k) for k in ("timing", "ceilings", "telemetry"))
    cut = f"the process did not finish it ({answer.get(ENDED, 'it was told to stop')})"
    reason = answer.get("reason")
    return ProcessTiming(
        outcome=answer["outcome"],
        reason=None if reason is None else short(reason),
        timing=_timing(timing) if timing else None,
        threads=answer.get("threads"),
        ceilings=_ceilings(limits) if limits else None,
        telemetry=_telemetry(telemetry) if telemetry else None,
        protocols=tuple(
            ProtocolTiming(**_known(ProtocolTiming, found)) for found in answer.get("protocols", ())
        ),
        environment=answer.get("environment", {}),
        seconds=seconds,
        compiling=answer.get("compiling"),
        turns=answer.get("turns"),
        processors=tuple(answer.get("processors", ())),
        restless=answer.get("restless", False),
        refused={
            **answer.get("refused", {}),
            **dict.fromkeys(answer.get(UNFINISHED, ()), short(cut)),
        },
    )


def _timing(found: dict[str, Any]) -> Timing:
    lists = {k: tuple(found[k]) for k in ("samples", "warmup")}
    return Timing(**{**_known(Timing, found), **lists})


def _ceilings(found: dict[str, Any]) -> Ceilings:
    told = [k for k in ("product", "copy") if found.get(k)]
    scatters = {k: Scatter(**_known(Scatter, found[k])) for k in told}
    return Ceilings(**{**_known(Ceilings, found), **scatters})


def _telemetry(found: dict[str, Any]) -> Telemetry:
    listed = ("throttled", "throttled_samples")
    lists = {k: tuple(found.get(k, ())) for k in listed}
    return Telemetry(**{**_known(Telemetry, found), **lists})


def _known(what: type[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that this version has a field for."""
    return {field.name: found[field.name] for field in fields(what) if field.name in found}


def short(reason: str) -> str:
    """One line that cannot steer a terminal: it may be another library's."""
    return printable(" ".join(reason.split()).rstrip("."))[:LONGEST]
