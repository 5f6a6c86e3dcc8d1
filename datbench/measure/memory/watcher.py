"""The dispatch mode that sees every storage be born and die.

It runs under autograd, where an operator arrives as the kernel that runs and saved tensors are
held as in training. A storage's death is told by a weak reference to it: autograd's references
count, so nothing here keeps a tensor alive.
"""

from __future__ import annotations

import bisect
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ...ledger import Category
from ..modes import EagerMode
from ..modules import ModuleTracker
from ..operators import execute, plan_of
from .kernels import result, scratch
from .trace import Block, Phase, Trace


@dataclass
class _Life:
    """A storage while it is watched."""

    size: int
    category: Category | None
    operator: str
    module: str
    phase: Phase
    born: int
    died: int | None = None


class Watcher(EagerMode):
    """Records the life of every storage on meta."""

    def __init__(self, tracker: ModuleTracker) -> None:
        super().__init__()
        self.tracker = tracker
        self.phase: Phase = "before"
        self._lives: list[_Life] = []
        self._watched: dict[int, tuple[weakref.ref[Any], _Life]] = {}
        self._time = 0
        self._forward_end = 0
        self._owners: dict[int, str] = {}
        self._sequence: list[int] = []
        self._closed = False

    # What the run says.

    def mark(self, tensors: Iterable[Tensor], category: Category) -> None:
        """These tensors' storages are of this category, unless they are of one already.

        What is not on meta, the step counts of an optimizer, is there from now on.
        """
        for tensor in tensors:
            life = self._life(tensor, "", "")
            if life is None:
                life = self._born(tensor.untyped_storage().nbytes(), "", "")
            if life.category is None:
                life.category = category

    def forward_ended(self, keeps: bool) -> None:
        """What is alive and of no other category is kept for the backward, if `keeps`."""
        self._forward_end = self._time
        self._sequence = sorted(self._owners)
        for life in self._lives:
            if keeps and life.died is None and life.category is None:
                life.category = "kept"

    def trace(self) -> Trace:
        """What was seen. Nothing more is recorded."""
        self._closed = True
        self._watched.clear()
        blocks = tuple(
            Block(
                life.size,
                life.category or "temporary",
                life.operator,
                life.module,
                life.phase,
                life.born,
                life.died,
            )
            for life in self._lives
        )
        return Trace(blocks, self._forward_end, self._time)

    # Births and deaths.

    def _life(self, tensor: Tensor, operator: str, module: str) -> _Life | None:
        """The tensor's storage, born now if it was not known."""
        if not tensor.is_meta:
            return None  # a number's
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._watched.get(key)
        if known is not None:
            return known[1]
        life = self._born(storage.nbytes(), operator, module)

        def died(_: object) -> None:
            if not self._closed:
                self._time += 1
                life.died = self._time
                del self._watched[key]

        self._watched[key] = (weakref.ref(storage, died), life)
        return life

    def _born(self, size: int, operator: str, module: str) -> _Life:
        self._time += 1
        life = _Life(size, None, operator, module, self.phase, self._time)
        self._lives.append(life)
        return life

    # Dispatch.

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        plan = plan_of(func)
        if plan.status == "composite":
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        module = self._module()
        out = result(plan.overload, args, kwargs)
        if out is None:
            out = execute(func, plan, args, kwargs)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._life(leaf, plan.name, module)
        extra = scratch(plan.overload, args, kwargs)
        if extra:
            life = self._born(extra, plan.name, module)
            self._time += 1
            life.died = self._time
        return out

    def _module(self) -> str:
        """Whose operator this is: in the backward, the module's that made the autograd node."""
        module, _ = self.tracker.current
        if self.phase != "backward":
            # The node of the operator being dispatched was made just before.
            self._owners.setdefault(torch._C._autograd._get_sequence_nr() - 1, module)
            return module
        if module:
            return module  # a checkpointed module runs again
        node = torch._C._current_autograd_node()
        if node is None or not self._sequence:
            return ""
        at = bisect.bisect_right(self._sequence, node._sequence_nr()) - 1
        return self._owners[self._sequence[max(at, 0)]]
