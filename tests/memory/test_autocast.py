"""Autocast on meta is what torch's own is on CUDA, and the ledger shows it."""

import itertools
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import datbench
from datbench import Resolution, Setting
from datbench.errors import UsageError
from datbench.memory import autocast, simulate
from datbench.memory.device import profiled
from datbench.memory.records import MemoryRow
from datbench.memory.simulation import memory_row
from datbench.setting import AUTOCASTS, Autocast, MemoryMode, Recipe
from tests.nets import WEIGHTS, image, mlp, short

Call = tuple[str, list[tuple[torch.dtype, tuple[int, ...]]]]


class _Calls(TorchDispatchMode):
    """Operators with the types and shapes of what they return."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[Call] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        leaves = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self._calls.append((str(func), [(leaf.dtype, tuple(leaf.shape)) for leaf in leaves]))
        return out

    def compared(self) -> list[Call]:
        """Without what differs for other reasons: a fake device's name and the copies of numbers
        to it, and the order in which a compiler evaluates an operator's arguments.
        """
        copy, left_out = "aten._to_copy.default", ("prim.device.default", "aten.detach.default")
        calls = [call for call in self._calls if call[0] not in left_out]
        pairs = zip([("", []), *calls], calls, strict=False)
        number = "aten.lift_fresh.default"
        calls = [c for last, c in pairs if c[0] != number and (last[0], c[0]) != (number, copy)]
        found: list[Call] = []
        for casts, group in itertools.groupby(calls, lambda call: call[0] == copy):
            some = list(group)
            found += sorted(some, key=str) if casts else some
        return found


def _on_cuda(make: Callable[[], nn.Module], shape: tuple[int, ...], dtype: torch.dtype) -> _Calls:
    """torch's own, on fake tensors."""
    with torch.device("meta"):
        model = make()
    # cuDNN's sampling, which returns the same, has no fake.
    with FakeTensorMode(), torch.backends.cudnn.flags(enabled=False), _Calls() as calls:
        own = {
            name: torch.empty(t.shape, dtype=t.dtype, device="cuda", requires_grad=t.requires_grad)
            for name, t in [*model.named_parameters(), *model.named_buffers()]
        }
        image = torch.empty(shape, device="cuda")
        calls._calls.clear()
        before = torch.get_autocast_dtype("cuda")
        torch.set_autocast_dtype("cuda", dtype)
        torch.set_autocast_enabled("cuda", True)
        try:
            torch.func.functional_call(model, own, (image,))
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.set_autocast_dtype("cuda", before)
            torch.clear_autocast_cache()
    return calls


def _on_meta(make: Callable[[], nn.Module], shape: tuple[int, ...], dtype: torch.dtype) -> _Calls:
    with torch.device("meta"):
        model, image = make(), torch.empty(shape)
    casts = autocast.Autocast(dtype)
    with casts.installed(), casts.casting(), _Calls() as calls:
        model(image)
    return calls


class _Sundry(nn.Module):
    """One operator of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.mixed = nn.Parameter(torch.zeros(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        low = self.linear(x)
        low = low + torch.einsum("bi,ij->bj", low, self.mixed) + low @ self.mixed
        full = low.exp().pow(2) + low.cumsum(-1) + low.sum(-1, keepdim=True) + low.prod(-1, True)
        full = full + torch.addcmul(low, low, low) + torch.addcmul(x, low, low)
        double = self.linear.weight.double().sum() + x.double().exp()
        double = double + low.softmax(-1, dtype=torch.float64)
        return low.softmax(-1) + low.log_softmax(-1) + full.softmax(-1) + double


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "sundry": (_Sundry, (2, 8)),
    **{
        name: (partial(datbench.create_model, short(name)), (2, 3, 64, 64))
        for name in ("dat_t", "datpp_t", "dat_t_ddetr_16_16")
    },
}

TORCH = tuple(int(n) for n in torch.__version__.split(".")[:2])


@pytest.mark.skipif(
    TORCH < (2, 14) and not torch.cuda.is_available(),
    reason="torch 2.6 asks the driver about a fake CUDA parameter, and ends the process where "
    "there is none; 2.14 does not",
)
@pytest.mark.skipif(
    not torch.backends.cuda.is_built(),
    reason="torch's autocast takes CUDA tensors, fake ones too, only where it is built for CUDA",
)
@pytest.mark.parametrize(
    ("case", "autocast"),
    [("sundry", "float16"), *((case, "bfloat16") for case in CASES)],
)
def test_every_operator_runs_in_the_type_that_cuda_runs_it_in(case: str, autocast: str) -> None:
    make, shape = CASES[case]
    dtype = getattr(torch, autocast)
    expected = _on_cuda(make, shape, dtype).compared()
    assert any(out[0] == dtype for _, outs in expected for out in outs)
    assert _on_meta(make, shape, dtype).compared() == expected


IMAGE = image(8, 16)


@pytest.mark.parametrize("autocast", AUTOCASTS)
def test_by_pencil(autocast: Autocast) -> None:
    trace = simulate(mlp(), IMAGE, mode="backward", recipe=Recipe(autocast=autocast))
    # The input's cast, the GELU's input, the second layer's; and that one's weight for its input's
    # gradient. The first layer's input needs none, so its weight's cast dies with the forward.
    assert trace.whole("kept") == 2 * (8 * 16 + 2 * 8 * 64 + 64 * 16)
    assert trace.whole("outputs") == 2 * 8 * 16
    assert trace.whole("parameters") == trace.whole("gradients") == WEIGHTS


def test_weights_are_cast_once_and_forgotten_with_the_forward() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 16, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.linear(x))

    with torch.device("meta"):
        model = Twice()
    trace = simulate(model, IMAGE, mode="inference", recipe=Recipe(autocast="bfloat16"))
    casts = [b for b in trace.blocks if b.operator == "aten::_to_copy"]
    assert sorted(b.size for b in casts) == [2 * 8 * 16, 2 * 16 * 16]
    (weight,) = [b for b in casts if b.size == 2 * 16 * 16]
    assert weight.died <= trace.forward_end
    # It outlives the second product.
    assert weight.died > max(b.born for b in trace.blocks)


def _row(autocast: Autocast | None, mode: MemoryMode = "forward", **setting) -> MemoryRow:
    given = Setting(Resolution(224, 224), batch=8, **setting)
    return memory_row(short("dat_t"), given, mode, Recipe(autocast=autocast))


def test_dat_keeps_about_half_of_what_products_and_activations_make() -> None:
    full, half = (
        {p.operator: p.kept for p in _row(a).parts_by("operator")} for a in (None, "bfloat16")
    )
    for operator in ("aten::addmm", "aten::gelu"):
        # A GELU of the offset networks follows a norm, whose result is float32: it keeps none.
        assert half[operator] == pytest.approx((full[operator] or 0) / 2, rel=0.05), operator
    assert half["aten::_to_copy"]
    assert not full.get("aten::_to_copy")


def test_parameters_gradients_and_state_stay_float32() -> None:
    full, half = (_row(a, "step") for a in (None, "float16"))
    for category in ("parameters", "gradients", "optimizer", "inputs"):
        assert half.line(category).amount == full.line(category).amount
    assert (half.line("outputs").amount or 0) * 2 == full.line("outputs").amount
    assert half.recipe == Recipe("adamw", "float16")


def test_fused_attention_takes_low_precision() -> None:
    trace = _row("bfloat16", attention="sdpa")
    fused = "aten::_scaled_dot_product_efficient_attention"
    (part,) = [p for p in trace.parts_by("operator") if p.operator == fused]
    (plain,) = [p for p in _row(None, attention="sdpa").parts_by("operator") if p.operator == fused]
    # The output halves; a query's logarithm does not.
    assert 0.5 < part.kept / plain.kept < 0.6


def test_a_block_that_runs_again_is_cast_again() -> None:
    setting = Setting(Resolution(64, 64), batch=2)
    row, plain = (
        memory_row(short("dat_t"), setting, "backward", Recipe(None, "bfloat16", how))
        for how in ("block", None)
    )
    assert (row.line("kept").amount or 0) < (plain.line("kept").amount or 0) / 3
    assert row.line("gradients").amount == plain.line("gradients").amount


def test_nothing_is_left_behind() -> None:
    before = simulate(mlp(), IMAGE, mode="backward")
    simulate(mlp(), IMAGE, mode="backward", recipe=Recipe(autocast="bfloat16"))
    assert simulate(mlp(), IMAGE, mode="backward") == before
    assert not torch.is_autocast_enabled("cpu")
    assert not torch._C._dispatch_get_registrations_for_dispatch_key("AutocastPrivateUse1")
    with pytest.raises(RuntimeError, match="unflatten"):
        simulate(nn.Unflatten(1, (3,)), IMAGE, recipe=Recipe(autocast="bfloat16"))
    assert not torch._C._dispatch_get_registrations_for_dispatch_key("AutocastPrivateUse1")
    assert mlp()(IMAGE).dtype == torch.float32


def test_what_cannot_be_cast() -> None:
    with pytest.raises(UsageError, match="a model in bfloat16 takes no autocast"):
        _row("float16", dtype="bfloat16")
    with pytest.raises(UsageError, match="cannot be verified"):
        profiled(
            nn.Linear(2, 2), torch.ones(1, 2), mode="backward", recipe=Recipe(autocast="float16")
        )
