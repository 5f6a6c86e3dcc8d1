"""Work that no dispatcher sees: kernels that are called past torch's operators.

An autograd.Function may call a compiled extension, numpy or ctypes; then no operator runs that a
count could see. What can be seen is a result that no operator wrote: it appears from nowhere, or
it was allocated and filled behind torch's back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx, FunctionMeta
from torch.multiprocessing.reductions import StorageWeakRef

from ..run import tensors_in

FunctionRun: TypeAlias = Callable[[str, Sequence[Any], Callable[[], Any]], Any]

_EMPTY = frozenset(
    f"aten::{name}"
    for name in "empty empty_like empty_strided empty_permuted new_empty new_empty_strided".split()
)
_ZERO = frozenset(f"aten::{name}" for name in "zeros zeros_like new_zeros zero_".split())

_MAY_READ_NOTHING = ("aten::addmm", "aten::baddbmm", "aten::addbmm", "aten::addmv")
"""With beta=0 they do not read their first argument, which may be empty."""


@contextmanager
def functions_run_by(run: FunctionRun) -> Iterator[None]:
    """Have `run(name, arguments, call)` call every autograd.Function, forward and backward.

    Torch asks the class for its `forward`, and a property of the metaclass answers first. So an
    `apply` that a module keeps from before is seen too.
    """
    # Torch 2.6 has the first alone.
    names = [name for name in ("apply", "apply_boxed") if hasattr(BackwardCFunction, name)]
    before = {name: getattr(BackwardCFunction, name) for name in names}

    def forward(cls: Any) -> Any:
        written = next(vars(base)["forward"] for base in cls.__mro__ if "forward" in vars(base))
        call = written.__get__(None, cls)
        return lambda *args, **kwargs: run(cls.__name__, args, lambda: call(*args, **kwargs))

    def backward(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda node, *args: run(type(node).__name__, args, lambda: call(node, *args))

    def assigned(cls: Any, value: Any) -> None:
        del meta.forward
        cls.forward = value
        meta.forward = property(forward, assigned)

    meta, node_class = cast(Any, FunctionMeta), cast(Any, BackwardCFunction)
    meta.forward = property(forward, assigned)
    for name, call in before.items():
        setattr(node_class, name, backward(call))
    try:
        yield
    finally:
        del meta.forward
        for name, call in before.items():
            setattr(node_class, name, call)


class Storages:
    """A set of storages. None is kept alive, and no later one is taken for one that is gone."""

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        self._found: dict[int, Any] = {}
        for tensor in tensors:
            self.add(tensor)

    def __contains__(self, tensor: Tensor) -> bool:
        return _address(tensor) in self._found

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, tensor: Tensor) -> None:
        """Add the storage of a tensor that has one."""
        address = _address(tensor)
        if address is not None and address not in self._found:
            reference: Any = StorageWeakRef  # torch leaves it untyped
            self._found[address] = reference(tensor.untyped_storage())

    def discard(self, tensor: Tensor) -> None:
        """Forget a tensor's storage."""
        self._found.pop(_address(tensor) or 0, None)

    def update(self, others: Storages) -> None:
        """Add all of others."""
        self._found.update(others._found)


def _address(tensor: Tensor) -> int | None:
    """What identifies a living storage; None for a sparse or nested tensor, which has several."""
    try:
        address: int = tensor.untyped_storage()._cdata
        return address
    except (NotImplementedError, RuntimeError):
        return None


class OutsideWork:
    """What operators wrote, as far as it tells what none of them did."""

    def __init__(self, known: Iterable[Tensor] = (), values: bool = False) -> None:
        """
        Args:
            known: tensors that were there before the run.
            values: the inputs have values, so that numpy may compute with them.
        """
        self._known = Storages(known)
        self._values = values
        self._blank = Storages()  # allocated, and not written by any operator yet
        self.running: list[Storages] = []  # what operators wrote inside each running Function

    @property
    def watching(self) -> bool:
        """Whether anything can be filled elsewhere now: nobody fills tensors without values."""
        return self._values or bool(self.running)

    def appeared(self, tensors: Iterable[Tensor]) -> bool:
        """Whether one of these has content that no operator wrote. It is told once."""
        found = [tensor for tensor in tensors if self._filled_elsewhere(tensor)]
        for tensor in found:
            self._blank.discard(tensor)
            self._known.add(tensor)
        return bool(found)

    def _filled_elsewhere(self, tensor: Tensor) -> bool:
        if self._blank and tensor in self._blank:
            return tensor.numel() > 0 and not tensor.is_meta
        if not (self._values and tensor.is_cpu) or tensor in self._known:
            return False
        # Memory that torch did not allocate, such as an array of numpy.
        own = _address(tensor) is None or tensor.untyped_storage().resizable()
        return not (own or tensor.untyped_storage().is_shared())

    def ran(self, name: str, args: Sequence[Any], outputs: Sequence[Tensor], view: bool) -> bool:
        """Take note of an operator; whether it read what no operator wrote.

        Args:
            args: the tensors that it takes.
        """
        if name in _EMPTY:
            for tensor in outputs:
                self._blank.add(tensor)
            return False
        if view:
            return False
        if self._blank:
            for tensor in outputs:
                self._blank.discard(tensor)  # what an operator writes in place is not blank
        if self.running and name not in _ZERO:
            for tensor in outputs:
                self.running[-1].add(tensor)
        if name.endswith("_like") or name.startswith("aten::new_"):
            return False  # asks for the shape
        return self.appeared(args[1:] if name in _MAY_READ_NOTHING else args)

    def function(self, args: Sequence[Any], call: Callable[[], Any]) -> tuple[Any, bool]:
        """Run a custom Function; its result, and whether no operator made (part of) it."""
        before, written = Storages(tensors_in(args)), Storages()
        self.running.append(written)
        try:
            out = call()
        finally:
            self.running.pop()
            if self.running:
                self.running[-1].update(written)
        context = args[0] if args and isinstance(args[0], FunctionCtx) else None
        changed = getattr(context, "dirty_tensors", None) or ()
        dirty = Storages(tensor for tensor in changed if tensor not in written)
        hidden = False
        for tensor in tensors_in(out):
            made = tensor in written or tensor in before or tensor in self._known
            if made and tensor not in dirty:
                continue
            hidden |= tensor.numel() > 0 and _address(tensor) is not None
            self._blank.discard(tensor)
            self._known.add(tensor)
        self._known.update(written)  # a backward may return what its forward saved
        return out, hidden
