"""Results as plain values, and their JSON form.

A document is ``{"format": "datbench", "version": 1, "kind", "environment", "rows": [...]}``.
Version history: 1, the first (0.1.0): kinds ``flops``, ``explain``, ``eq10``, ``eq10-fit``,
``eq10-paper``, ``eq10-measured``, ``memory``, ``memory-largest``, ``memory-measured``,
``throughput``, ``profile``, ``compare``, ``compare-aa``, ``baseline``, ``gate``, ``report``,
``validate``, ``points``, ``table``, ``params``, ``models``, ``show``, ``env``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..setting import Count, Setting
from ..units import Brief


@dataclass(frozen=True)
class GroupRow:
    """A part of a count: an operator, a stage or a module."""

    name: str
    calls: Count
    amount: Count  # in the convention's unit
    share: float  # of the whole, 0 to 1
    bytes_read: Count
    bytes_written: Count
    intensity: float | None  # amount for each byte read or written; None where no byte moves


@dataclass(frozen=True)
class ParameterRow:
    """Numbers of elements, not bytes."""

    params: Count  # trainable parameters, what papers print
    frozen: Count  # parameters without gradient
    buffers: Count  # elements of registered buffers, persistent or not


@dataclass(frozen=True)
class PartRow:
    """A part of a model, its class, and its elements (see `ParameterRow`)."""

    part: str
    kind: str
    params: Count
    frozen: Count
    buffers: Count


@dataclass(frozen=True, repr=False)
class CountRow(Brief):
    """One model at one setting, under one convention."""

    model: str
    setting: Setting
    convention: str  # ``fvcore`` or ``mmdet`` (MAC), ``torch`` or ``strict`` (FLOP)
    unit: str  # ``MAC`` or ``FLOP``, the unit of every `amount` here
    amount: Count  # the convention's total, for the whole batch
    macs: Count  # the total in MACs; for a convention in FLOPs, the multiply-adds alone
    flops: Count | None  # the total of a convention in FLOPs; None where the convention counts MACs
    forward: Count  # the total of the forward
    backward: Count | None  # of the backward; None if it was not counted
    params: Count  # trainable parameters
    frozen: Count  # parameters without gradient
    buffers: Count  # elements of buffers
    bytes_read: Count  # by all operators
    bytes_written: Count
    stages: tuple[GroupRow, ...]
    operators: tuple[GroupRow, ...]
    modules: tuple[GroupRow, ...]
    counted: dict[str, Count]  # calls by operator, of those with a cost
    ignored: dict[str, Count]  # operators with a cost to which this convention gives no weight
    free: dict[str, Count]  # operators that compute nothing
    unknown: dict[str, Count]  # operators without a rule; their cost is missing from the total
    stage_params: dict[str, Count]  # trainable parameters by stage


@dataclass(frozen=True)
class ChainTerm:
    """One operator's part of the difference between two conventions."""

    label: str  # for people: the operator, and the kind of its work where it does several
    operator: str
    kind: str
    calls: int
    amount: int  # of that kind of work, unweighted
    each: int | None  # the difference for one unit of work; None where it depends on the module
    difference: int  # what the term adds, in the chain's unit


@dataclass(frozen=True, repr=False)
class Chain(Brief):
    """Two conventions, in one unit: `start_amount` and the terms are `end_amount`, exactly."""

    start: str
    end: str
    unit: str
    start_amount: int
    end_amount: int
    terms: tuple[ChainTerm, ...]


@dataclass(frozen=True)
class PeerTerm:
    """A part of the difference between another counter's figure and our multiply-adds."""

    label: str  # for people: the operator and the kind of its work
    kind: str | None  # of work; ``parameters`` for a module's own; None where nothing explains it
    # classes of the modules concerned; empty where it is every module with the operator
    modules: tuple[str, ...]
    below: bool  # whether what runs inside these modules' children is meant too
    amount: int | None  # of that kind of work, unweighted; None where nothing explains it
    # what the other counter adds for one unit of work; -1 on a product: it is not counted
    each: int | float | None
    difference: int | float  # in MACs
    others: tuple[str, ...]  # other columns that would explain the same as simply


@dataclass(frozen=True, repr=False)
class PeerRow(Brief):
    """What another counter said, in a process of its own."""

    name: str
    version: str | None
    unit: str  # of `amount`: ``MAC`` or ``FLOP``
    # as the counter gave it; None where it gave none, and `reason` says why
    amount: int | float | None
    macs: int | float | None  # the same in MACs: FLOPs halved
    difference: int | float | None  # `macs` less our multiply-adds
    seconds: float | None  # the counting call, once
    peak_bytes: Count | None  # of the process, torch and all
    extra_bytes: int | None  # the part above what the process held before the counting call
    # what the difference is; None where the counter gives totals alone
    terms: tuple[PeerTerm, ...] | None
    reason: str | None


@dataclass(frozen=True, repr=False)
class ExplainRow(Brief):
    """One count, and how the conventions and the other counters differ on it."""

    model: str
    setting: Setting
    macs: Count  # multiply-adds alone
    chains: tuple[Chain, ...]
    unknown: dict[str, Count]  # operators without a rule, in no figure here
    peers: tuple[PeerRow, ...] | None  # None where they were not run
