"""One run as a trace in Chrome's format, which Perfetto opens, with a range for every module."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ...errors import MeasurementError
from ...models.declared import observing
from ...models.resolve import Spec
from ...timings import TimeMode
from ...types import Setting
from ..kineto import quiet_kineto
from .prepare import running, threads_set
from .runner import DeclaredRanges, for_people, module_ranges

SUFFIXES = (".json", ".json.gz")


def trace(
    model: str | Spec,
    setting: Setting,
    mode: TimeMode = "infer",
    *,
    threads: int | None = None,
    channels_last: bool = False,
    compressed: bool = False,
) -> bytes:
    """The second run of a model, operator by operator; the first is left out.

    Args:
        compressed: by gzip.

    Raises:
        MeasurementError: it does not run, or the profiler writes no trace.
    """
    activities = [ProfilerActivity.CPU]
    if torch.device(setting.device).type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with threads_set(threads), running(model, setting, mode, channels_last) as (_, runner):
        runner()
        with (
            quiet_kineto(),
            observing(DeclaredRanges()),
            module_ranges(runner.model, for_people),
            profile(activities=activities) as profiler,
        ):
            runner.ranged()
            if ProfilerActivity.CUDA in activities:
                torch.cuda.synchronize(setting.device)
    text = json.dumps(_exported(profiler)).encode()
    return gzip.compress(text, mtime=0) if compressed else text


def _exported(profiler: Any) -> dict[str, Any]:
    """What the profiler writes, read back: a file that does not parse is worth nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MeasurementError(f"the profiler wrote no trace: {error}.") from error
    for name in ("traceName", "host_name"):  # a file that is gone, and whose machine it was
        found.pop(name, None)
    return found
