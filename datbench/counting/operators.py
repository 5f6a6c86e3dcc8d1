"""What to do with an operator when it is dispatched: count it, let it pass, or look inside.

Every operator falls into one of three lists. *Counted*: it has a rule, or torch tags it as
pointwise. *Free*: it computes nothing (views, copies, creation, indexing), though it may move
bytes. *Unknown*: neither; it is named in the result and never taken for zero in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from ..setting import Kind
from . import kernels  # noqa: F401 - it adds its rules to those of `shapes`
from .misfits import refuse
from .rules import RULES, Cost, Rule, first
from .shapes import fits_in_place, is_inplace, is_ruled, predict

Status = Literal["counted", "free", "unknown", "composite"]

_FREE = frozenset(
    f"aten::{name}"
    for name in """
    _copy_from _has_compatible_shallow_copy_type _local_scalar_dense _nested_tensor_from_mask
    _pin_memory _reshape_alias _shape_as_tensor _sparse_coo_tensor_unsafe _to_copy _unsafe_view
    alias_copy arange block_diag cat channel_shuffle clone concat constant_pad_nd copy copy_
    detach_ diag_embed diagonal_scatter embedding empty empty_like empty_permuted empty_strided
    equal expand_copy eye fill fill_ flip full full_like gather hann_window index index_copy
    index_copy_ index_fill index_fill_ index_select is_nonzero is_pinned is_same_size item lift
    lift_fresh lift_fresh_copy linspace logspace masked_scatter masked_select multinomial
    new_empty new_empty_strided new_full new_ones new_zeros nonzero nonzero_static one_hot ones
    ones_like pad permute_copy pin_memory pixel_shuffle pixel_unshuffle put rand rand_like
    randint randint_like randn randn_like randperm record_stream reflection_pad1d
    reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d
    replication_pad2d replication_pad3d resize resize_ resize_as_ roll rot90 scalar_tensor
    scatter scatter_ select_backward select_scatter set_ slice_backward slice_scatter split_copy
    split_with_sizes_copy stack sym_numel sym_size sym_stride sym_storage_offset t_copy take
    take_along_dim tril tril_ tril_indices triu triu_ triu_indices unbind_copy
    unsafe_chunk unsafe_split unsafe_split_with_sizes unique_consecutive unique_dim view_copy
    zero zero_ zeros zeros_like
    value_selecting_reduction_backward _unsafe_index _unsafe_masked_index masked_scatter_backward
    reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward
    replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward
    diagonal_backward max_unpool2d max_unpool3d lu_unpack complex as_strided_scatter _chunk_cat
    _pack_padded_sequence _efficientzerotensor _fused_sdp_choice _functional_assert_async
    _linalg_check_errors _use_cudnn_ctc_loss range bartlett_window blackman_window hamming_window
    kaiser_window fft_fftfreq fft_rfftfreq is_coalesced is_set_to dense_dim sparse_dim _nnz
    _dimI _dimV _coalesced _indices _values _to_sparse _to_sparse_csr _to_sparse_csc
    _to_sparse_bsr _to_sparse_bsc _to_dense _convert_indices_from_coo_to_csr sparse_mask
    _convert_indices_from_csr_to_coo _validate_compressed_sparse_indices _spdiags
    _sparse_coo_tensor_with_dims_and_tensors sparse_coo_tensor sparse_compressed_tensor
    _sparse_compressed_tensor_unsafe int_repr q_scale q_zero_point qscheme
    """.split()
)

_FREE_PREFIXES = (
    "prim::",
    "profiler::",
    "prims::device_put",
    "aten::_assert",
    "aten::_nested_",
    "quantized::cat",
    "quantized::dropout",
)

_MOVES_NOTHING = frozenset(
    f"aten::{name}"
    for name in """
    _unsafe_view _reshape_alias lift lift_fresh detach_ unsafe_chunk unsafe_split
    unsafe_split_with_sizes empty empty_like empty_permuted empty_strided new_empty
    new_empty_strided resize_ set_ is_pinned is_same_size _has_compatible_shallow_copy_type
    """.split()
)
"""Free operators that neither read nor write, though torch does not call them views."""

READS_WHAT_IT_WRITES = frozenset(
    {"aten::embedding", "aten::index", "aten::index_select", "aten::gather", "aten::take"}
)
"""Operators that touch only the rows that they return."""


@dataclass(frozen=True)
class OperatorPlan:
    """What to do with one operator."""

    name: str
    status: Status
    rule: Rule | None = None
    is_view: bool = False  # its result shares its input's memory, or is empty: no byte moves
    overload: str = ""  # its full name, such as ``aten::add.Tensor``
    is_inplace: bool = False  # it writes into its first argument and changes no shape


def _pointwise(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    return {Kind.ELEMENTWISE: first(out).numel()}


def _each(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    return {Kind.ELEMENTWISE: sum(tensor.numel() for tensor in args[0])}


_plans: dict[Any, OperatorPlan] = {}
_rules = len(RULES)


def plan_of(operator: Any) -> OperatorPlan:
    """The plan for a dispatched operator. A rule may be registered at any time."""
    global _rules
    if _rules != len(RULES):
        _plans.clear()
        _rules = len(RULES)
    plan = _plans.get(operator)
    if plan is None:
        plan = _plans[operator] = _make_plan(operator)
    return plan


def _make_plan(operator: Any) -> OperatorPlan:
    if not isinstance(operator, OpOverload):
        return plan_of_name(f"higher_order::{operator}")
    name = operator._schema.name
    status, rule = _classify(operator, name)
    return OperatorPlan(
        name,
        status,
        rule,
        is_view=status == "free"
        and (operator.is_view or name in _MOVES_NOTHING or torch.Tag.inplace_view in operator.tags),
        overload=_full_name(operator),
        is_inplace=is_inplace(operator),
    )


def plan_of_name(name: str) -> OperatorPlan:
    """The plan for work outside torch's dispatcher, by name: counted if it has a rule."""
    return OperatorPlan(name, "counted" if name in RULES else "unknown", RULES.get(name))


def _classify(operator: OpOverload, name: str) -> tuple[Status, Rule | None]:
    # An in-place or out= form costs what the plain form costs; a copy of a view, nothing.
    base = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    rule = RULES.get(name) or RULES.get(base)
    if rule is not None:
        return "counted", rule
    if name in _FREE or base in _FREE or name.startswith(_FREE_PREFIXES):
        return "free", None
    if torch.Tag.inplace_view in operator.tags:
        return "free", None
    if name.endswith("_copy") and any(v.is_view for v in _overloads(name.removesuffix("_copy"))):
        return "free", None
    if torch.Tag.pointwise in operator.tags:
        return "counted", _pointwise
    if name.startswith("aten::_foreach_"):
        return "counted", _each
    # Before views: `reshape`, `contiguous` and `to` say that they may alias, and may copy.
    if overload_is_composite(_full_name(operator)):
        return "composite", None
    if operator.is_view:
        return "free", None
    # Torch tags some overloads alone, and few that work in place.
    if any(torch.Tag.pointwise in form.tags for form in _overloads(base)):
        return "counted", _pointwise
    return "unknown", None


def _overloads(name: str) -> list[OpOverload]:
    """Every overload of an operator of torch, if there is one of this name."""
    packet = getattr(torch.ops.aten, name.removeprefix("aten::"), None)
    return [getattr(packet, each) for each in packet.overloads()] if packet is not None else []


_DROPOUTS = ("aten::dropout", "aten::feature_dropout", "aten::alpha_dropout")


def returns_its_input(plan: OperatorPlan, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether this call does nothing at all: a dropout in evaluation, or at a rate of 0."""
    if plan.name not in _DROPOUTS:
        return False
    rate = args[1] if len(args) > 1 else kwargs["p"]
    train = args[2] if len(args) > 2 else kwargs["train"]
    return not train or rate == 0


def execute(
    operator: Any, plan: OperatorPlan, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """The operator's result: from shapes alone on meta where that is enough, else by running it."""
    if not plan.is_view:
        predicted = predict(plan.overload, args, kwargs)
        if predicted is not None:
            return predicted
        x = args[0] if plan.is_inplace else None
        if isinstance(x, Tensor) and x.is_meta and fits_in_place(operator, args, kwargs):
            return x
    try:
        return operator(*args, **kwargs)
    except AssertionError as error:
        # Torch 2.6's Python for meta asserts what kernels refuse.
        raise RuntimeError(str(error)) from error
    except (RuntimeError, IndexError) as error:
        if type(error) in (RuntimeError, IndexError) and is_ruled(plan.overload, args):
            refuse(str(error), type(error))  # and not for want of values
        raise


# The base of datbench's dispatch modes.


if TYPE_CHECKING:

    class _Mode:
        """TorchDispatchMode as a type checker may see it: torch leaves it untyped."""

        def __enter__(self) -> Any: ...
        def __exit__(self, *exc_info: object) -> None: ...

else:
    _Mode = TorchDispatchMode


class EagerMode(_Mode):
    """A dispatch mode that knows each operator's plan, is never compiled, and says so.

    Torch otherwise wraps a mode's handler in `torch._dynamo.disable`, whose first call imports the
    whole compiler: about as long as `import torch` itself. Compiled modules run eagerly under
    these modes in any case (`datbench.counting.count`).
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    decomposing = True
    """Whether the parts of a composite operator are dispatched instead of it."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        plan = plan_of(func)
        if plan.status == "composite" and self.decomposing:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        if isinstance(func, HigherOrderOperator) and plan.rule is None and any(map(callable, args)):
            # Control flow: it runs functions that it is given, and they are what it costs.
            return func(*(self._entered(a) if callable(a) else a for a in args), **kwargs)
        return self.dispatched(func, plan, args, kwargs)

    def _entered(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return run

    def dispatched(
        self, func: Any, plan: OperatorPlan, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """The operator's result."""
        return execute(func, plan, args, kwargs)


class ShapesOnly(EagerMode):
    """Run operators on meta tensors from shapes alone, for building models: initialising a
    tensor without storage does nothing.
    """

    decomposing = False


def _full_name(operator: OpOverload) -> str:
    """``aten::add.Tensor``; the default overload has no suffix."""
    schema = operator._schema
    name: str = schema.name
    return f"{name}.{schema.overload_name}" if schema.overload_name else name


def overload_is_composite(name: str) -> bool:
    """Whether an operator of this full name is made of others, whatever the device."""
    try:
        found = torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd")
    except RuntimeError:  # TorchScript's own overloads are not dispatched
        return False
    return bool(found)
