"""The process in which one counter counts one model: `python -m datbench.measure.peers.worker`.

How the job comes in and the answer goes out, `datbench.measure.serving` says.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from ...types import Resolution, Setting
from ..serving import one_line, serve


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job, or say in one line why it cannot be done."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    try:
        return run(job)
    except (Exception, SystemExit) as error:
        return {"reason": one_line(error)}


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Build the model, call the counter once, and say what it said and what that took.

    Args:
        job: ``peer``, ``model``, ``width``, ``height``, ``attention``, ``features``.
    """
    from .adapters import PEERS

    peer = PEERS[job["peer"]]
    import_module(peer.module)
    import torch

    from ..count import build_for_count

    setting = Setting(
        Resolution(job["width"], job["height"]),
        device="cpu",
        attention=job["attention"],
        features=job["features"],
    )
    model = build_for_count(job["model"], setting)
    x = torch.zeros(1, 3, job["height"], job["width"])
    held, earlier = _reset_peak()
    began = time.perf_counter()
    with torch.no_grad():
        tally = peer.count(model, x)
    seconds = time.perf_counter() - began
    peak = _peak()
    return {
        "version": metadata.version(peer.package),
        "total": tally.total,
        "modules": tally.modules,
        "seconds": seconds,
        "peak_bytes": None if peak is None else max(peak, earlier or 0),
        "extra_bytes": None if peak is None or held is None else max(0, peak - held),
    }


def _reset_peak() -> tuple[int | None, int | None]:
    """What the process holds now and the most it ever held; forgets the latter where it can.

    Linux keeps both, and forgets on request. Elsewhere the peak so far stands for both, so a
    counting call that stays below it shows as nothing.
    """
    peak = _peak()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak, peak
    return _status("VmRSS") or peak, peak


def _peak() -> int | None:
    """The most memory that the process ever held; None where no one keeps that."""
    found = _status("VmHWM")
    if found is not None:
        return found
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _status(key: str) -> int | None:
    """A line of /proc/self/status in bytes; None where there is no such thing."""
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            for line in lines:
                if line.startswith(f"{key}:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


if __name__ == "__main__":
    code = serve(work)
    sys.stdout.flush()
    os._exit(code)  # no counter's exit handlers, and no wait for the reading thread
