"""What loading a checkpoint did. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..units import Brief


@dataclass(frozen=True)
class Resized:
    """A bias table that was resized, with its shape in the file and in the model."""

    name: str
    was: tuple[int, ...]
    now: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class CheckpointReport(Brief):
    """What loading did."""

    path: str
    matched: tuple[str, ...]  # our parameters that the file sets without a change
    resized: tuple[Resized, ...]  # bias tables that were resized bicubically
    ignored: tuple[str, ...]  # keys of the file that this model does not use
    initialised: tuple[str, ...]  # our parameters that the file does not hold; they are unchanged
    weights: str  # where in the file they were read, such as state_dict.backbone; empty: at its top
    notes: tuple[str, ...]  # other weights in the file, values that are not finite

    @property
    def source(self) -> str:
        """The file, and which of its weights."""
        return f"{self.path} ({self.weights})" if self.weights else self.path

    def __str__(self) -> str:
        return (
            f"{self.source}: {len(self.matched)} matched, {len(self.resized)} resized, "
            f"{len(self.ignored)} ignored, {len(self.initialised)} left as initialised"
        )
