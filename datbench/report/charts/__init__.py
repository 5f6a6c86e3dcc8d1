"""From rows to charts. Every chart says by which convention, and where, its figures were made."""

from .accuracy import accuracy
from .costs import COUNTED, icicle_of_counts, icicle_of_times, resolutions
from .memory import ledgers, timelines
from .time import throughput

__all__ = [
    "COUNTED",
    "accuracy",
    "icicle_of_counts",
    "icicle_of_times",
    "ledgers",
    "resolutions",
    "throughput",
    "timelines",
]
