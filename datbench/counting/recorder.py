"""The dispatch mode that sees every operator of a model, forward and backward.

The forward runs below autograd, where an operator arrives as the model called it (`linear`,
`matmul`, `scaled_dot_product_attention`), on every device alike and whether or not a kernel is
fused. The backward runs under autograd, where each operator is traced to the module that made
its graph node by the node's sequence number.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.autograd.function import FunctionCtx
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from ..errors import MeasurementError
from ..models.declared import Declaration
from ..run import tensors_in, values_of
from ..setting import Kind
from .operators import (
    READS_WHAT_IT_WRITES,
    EagerMode,
    OperatorPlan,
    execute,
    plan_of_name,
    returns_its_input,
)
from .outside import OutsideWork
from .rules import RECURRENT, NoRule, recurrent_backward, with_complex


def below_autograd() -> AbstractContextManager[Any]:
    """Dispatch below autograd, where composite operators arrive whole."""
    guard: AbstractContextManager[Any] = torch._C._AutoDispatchBelowAutograd()
    return guard


# Which module is running: paths and classes, through torch's global hooks.
#
# Global hooks leave the model's own hooks alone; they are removed when the tracking ends.


class ModuleTracker:
    """A stack of (path, class name) of the modules whose forward is running.

    A class with an attribute `stands_for` goes by that name: it is another layer's equal.

    A module that is called under a name of `model.named_modules()` has that path; `_orig_mod`,
    which `torch.compile` adds, is left out. A module made during the forward has its caller's.
    """

    def __init__(self, model: nn.Module) -> None:
        self.paths: dict[int, str] = {}
        for path, module in model.named_modules():
            clean = ".".join(part for part in path.split(".") if part != "_orig_mod")
            self.paths.setdefault(id(module), clean)
        self._root = type(model).__qualname__
        self._stack: list[tuple[str, str]] = []

    @property
    def current(self) -> tuple[str, str]:
        """Path and class of the innermost running module."""
        return self._stack[-1] if self._stack else ("", self._root)

    def __enter__(self) -> ModuleTracker:
        self._handles = (
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._exit, always_call=True),
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._stack.clear()

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        path = self.paths.get(id(module))
        if path is None:
            path = self.current[0]
        layer = type(module)
        kind: str = getattr(layer, "stands_for", layer.__qualname__)
        self._stack.append((path, kind))

    def _exit(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._stack:
            self._stack.pop()


Owner = TypeVar("Owner")


class NodeOwners(Generic[Owner]):
    """Who made each autograd node, told by the node's sequence number."""

    def __init__(self) -> None:
        self._owners: dict[int, Owner] = {}
        self._sequence: list[int] = []
        self._last: int | None = None

    def made_by(self, owner: Owner) -> None:
        """The operator that is being dispatched is this owner's.

        Its node was made just before, so it has the last number given out; some that work in place
        made one more, for a copy of what they overwrite. Later operators of the same node find the
        number taken.
        """
        last = torch._C._autograd._get_sequence_nr() - 1
        first = last if self._last is None else self._last + 1
        for number in range(first, last + 1):
            self._owners[number] = owner
        self._last = max(last, first - 1)

    def current(self) -> Owner | None:
        """The owner of the node whose backward runs; of one that no dispatched operator made (a
        custom Function) the owner of the one before it.
        """
        node = torch._C._current_autograd_node()
        if node is None or not self._owners:
            return None
        if len(self._sequence) < len(self._owners):
            self._sequence = sorted(self._owners)
        at = bisect.bisect_right(self._sequence, node._sequence_nr()) - 1
        return self._owners[self._sequence[max(at, 0)]]


Phase = Literal["forward", "backward"]

Recorded = Literal["counted", "free", "unknown"]


class OperatorCall(NamedTuple):
    """One operator that ran."""

    operator: str  # its name, such as ``aten::linear``
    module: str  # path of the module that ran it; empty for the model itself
    module_type: str  # class of that module
    phase: Phase
    status: Recorded
    cost: Mapping[Kind, int]  # amounts by kind of work, unweighted
    bytes_read: int  # size of the tensors that it takes; a view moves none
    bytes_written: int
    shapes: tuple[tuple[int, ...], ...]  # of its tensor arguments


class _Owner(NamedTuple):
    """Who made an autograd node: the module, and the declared operator if it was inside one."""

    module: str
    module_type: str
    declaration: Declaration | None


class Recorder(EagerMode):
    """Records operator calls, or (with `recording` off) only who makes autograd nodes."""

    def __init__(self, tracker: ModuleTracker, outside: OutsideWork | None = None) -> None:
        super().__init__()
        self.calls: list[OperatorCall] = []
        self.tracker = tracker
        self.outside = outside or OutsideWork()
        self.phase: Phase = "forward"
        self.recording = True
        self.below = True  # dispatch is below autograd: no operator adds to a graph
        self._declarations: list[Declaration] = []
        self._owners: NodeOwners[_Owner] = NodeOwners()
        self._seen_backward: set[int] = set()

    # Declared operators: see `datbench.models.declared`.

    def enter(self, declaration: Declaration) -> None:
        """Take the declared cost; what runs until `exit` is its inside."""
        if self.recording and not self._declarations:
            module, module_type = self.tracker.current
            self._record_declared(declaration, module, module_type)
        self._declarations.append(declaration)

    def exit(self) -> None:
        """The declared operator has ended."""
        self._declarations.pop()

    def _record_declared(
        self, declaration: Declaration, module: str, module_type: str, backward: bool = False
    ) -> None:
        times, cost = 1, declaration.cost
        if backward:
            times = 2  # two gradients for each product
            cost = declaration.backward or {kind: 2 * amount for kind, amount in cost.items()}
        self.calls.append(
            OperatorCall(
                declaration.operator,
                module,
                module_type,
                self.phase,
                "counted",
                cost,
                times * declaration.bytes_read,
                times * declaration.bytes_written,
                (),
            )
        )

    @contextmanager
    def linking(self) -> Iterator[None]:
        """Record nothing, but remember which module makes which autograd node."""
        self.recording = False
        try:
            with _AboveAutograd(self):
                yield
        finally:
            self.recording = True

    # Dispatch.

    def dispatched(
        self, func: Any, plan: OperatorPlan, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Run it, and record what it cost."""
        if not self.recording:
            self._made_by_current()
            out = execute(func, plan, args, kwargs)
            if self.outside.watching:
                self.outside.ran(plan.name, _tensors(args), _results(out), plan.is_view)
            return out
        if self.phase == "forward":
            if self._declarations:
                return execute(func, plan, args, kwargs)
            module, module_type = self.tracker.current
            if self.below and torch.is_grad_enabled():
                self._check_graph(args)
        else:
            owner = self._backward_owner()
            if owner is not None and owner.declaration is not None:
                self._declared_backward(owner)
                return execute(func, plan, args, kwargs)
            module, module_type = (owner.module, owner.module_type) if owner else ("", "")
        inputs = _tensors(args)
        out = execute(func, plan, args, kwargs)
        outside = self.outside
        if outside.watching and outside.ran(plan.name, inputs, _results(out), plan.is_view):
            self._record_outside(module_type, module, module_type)
        self.calls.append(self._call(plan, module, module_type, args, kwargs, out, inputs))
        return out

    def _check_graph(self, args: Sequence[Any]) -> None:
        """
        Raises:
            GraphNeeded: the model turned gradients on, for a tensor that it made.
        """
        if any(t.requires_grad and not isinstance(t, nn.Parameter) for t in _tensors(args)):
            raise GraphNeeded("the forward does not require grad")

    # Work that no dispatcher sees: see `datbench.counting.outside`.

    def function(self, name: str, args: Sequence[Any], call: Callable[[], Any]) -> Any:
        """Run an autograd.Function's forward or backward; name it if it computes elsewhere."""
        if not self.recording:
            self._made_by_current()
        if self._declarations:
            return call()
        out, hidden = self.outside.function(args, call)
        if hidden and self.recording:
            owner = self._backward_owner() if self.phase == "backward" else None
            where = (owner.module, owner.module_type) if owner else self.tracker.current
            self._record_outside(name, *where, args, out)
        return out

    def returned(self, outputs: Any) -> None:
        """The model's forward has ended: what it returns may have been filled elsewhere."""
        # A model that only allocates is left alone.
        if self.outside.appeared(tensors_in(outputs)) and any(call.cost for call in self.calls):
            self._record_outside(self.tracker.current[1], *self.tracker.current)

    def _record_outside(
        self, what: str, module: str, module_type: str, args: Sequence[Any] = (), out: Any = None
    ) -> None:
        # The name that torch's traces, and so fvcore, give to it. A rule of the user's gets the
        # arguments of `apply`, as that of an operator does.
        plan = plan_of_name(f"prim::PythonOp.{what}")
        args = args[1:] if args and isinstance(args[0], FunctionCtx) else args
        self.calls.append(self._call(plan, module, module_type, args, {}, out, _tensors(args)))

    def _call(
        self,
        plan: OperatorPlan,
        module: str,
        module_type: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        out: Any,
        inputs: list[Tensor],
    ) -> OperatorCall:
        inputs = inputs + _tensors(tuple(kwargs.values())) if kwargs else inputs
        outputs = _results(out)
        read = written = 0
        idle = returns_its_input(plan, args, kwargs)
        if not (plan.is_view or idle):
            written = sum(map(_moved, outputs))
            if plan.name in READS_WHAT_IT_WRITES:
                read = written + sum(map(_moved, inputs[1:]))
            else:
                read = sum(map(_moved, inputs))
        status: Recorded = "unknown" if plan.status == "composite" else plan.status
        cost: Mapping[Kind, int] = {}
        if plan.rule is not None and not idle:
            try:
                cost = with_complex(plan.name, plan.rule(args, kwargs, out), inputs, outputs)
            except NoRule:
                status = "unknown"
        if idle or (status == "counted" and not cost):
            status = "free"
        shapes = tuple([tuple(t.shape) for t in inputs])
        return OperatorCall(
            plan.name, module, module_type, self.phase, status, cost, read, written, shapes
        )

    # From autograd nodes to modules.

    def _made_by_current(self) -> None:
        inside = self._declarations[0] if self._declarations else None
        self._owners.made_by(_Owner(*self.tracker.current, inside))

    def _backward_owner(self) -> _Owner | None:
        module, module_type = self.tracker.current
        if module:
            return _Owner(module, module_type, None)  # a checkpointed module runs again
        return self._owners.current()

    def _declared_backward(self, owner: _Owner) -> None:
        """The backward of a declared operator, once."""
        declaration = owner.declaration
        assert declaration is not None
        if id(declaration) not in self._seen_backward:
            self._seen_backward.add(id(declaration))
            self._record_declared(declaration, owner.module, owner.module_type, backward=True)


class _AboveAutograd(TorchFunctionMode):
    """What makes another graph on each device, or for a compiler alone, makes one graph here."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator) and str(func) == "cond":
            taken, otherwise, operands = args[1:4]  # torch would trace both
            return (taken if args[0] else otherwise)(*operands)
        if func not in RECURRENT:
            return func(*args, **kwargs)
        read = sum(map(_moved, tensors_in(args)))
        cost = recurrent_backward(args)
        self.recorder.enter(Declaration(f"aten::{func.__name__}", {}, read, 0, backward=cost))
        try:
            return func(*args, **kwargs)
        finally:
            self.recorder.exit()


class GraphNeeded(RuntimeError):
    """A forward takes gradients, and runs without a graph."""


class GraphWhereAsked(TorchFunctionMode):
    """Dispatch below autograd but where the model turns gradients on, which makes its graph."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        with nullcontext() if torch.is_grad_enabled() else below_autograd():
            return func(*args, **(kwargs or {}))


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among an operator's arguments or results, lists looked into."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            if value.is_nested:
                raise MeasurementError(
                    "nested tensors cannot be counted; pad them: torch.nested.to_padded_tensor()."
                )
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(item for item in value if isinstance(item, Tensor))
    return found


def _results(out: Any) -> list[Tensor]:
    return _tensors(out if isinstance(out, (tuple, list)) else (out,))


def _moved(tensor: Tensor) -> int:
    """Bytes of a tensor's elements; an expanded dimension is stored, and moved, once."""
    if tensor.layout != torch.strided:
        return values_of(tensor).numel() * tensor.element_size()
    if tensor.is_contiguous():
        return tensor.numel() * tensor.element_size()
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        if stride or size == 0:
            elements *= size
    return elements * tensor.element_size()
