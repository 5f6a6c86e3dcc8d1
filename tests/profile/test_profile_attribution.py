"""The profiler's operators are the counter's: trees by hand, and models as they are."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.modules import module as globals_of

from datbench.counting.count import build_for_count, count
from datbench.counting.recorder import OperatorCall
from datbench.models.resolve import resolve
from datbench.profile.attribute import (
    FORWARD,
    GRADIENTS,
    NODE,
    RUN,
    STEP,
    Attributed,
    ProfiledRun,
    Span,
    attribute,
    canonical,
    is_composite,
    module_ranges,
    runs_of,
    spans_of,
)
from datbench.profile.profile import observe, running
from datbench.run import Inputs, Runner, unchanged
from datbench.setting import Attention, Resolution, Setting
from tests.nets import short


def call(operator: str, module: str, phase: Any = "forward") -> OperatorCall:
    return OperatorCall(operator, module, "", phase, "free", {}, 8, 8, ((2, 2),))


def span(name: str, at: float, own: float, *children: Span, sequence: int = -1) -> Span:
    return Span(name, at, at + own + sum(c.whole for c in children), own, sequence, children)


CALLS = [
    call("aten::linear", "a"),
    call("aten::view", "a"),
    call("aten::gelu_", "b"),
    call("aten::linear", "b"),
]


SPANS = (
    span("aten::linear", 0, 1.0, span("aten::addmm", 0.5, 2.0, sequence=7), sequence=7),
    span("aten::flatten", 4, 0.25, span("aten::_reshape_alias", 4, 0.125)),
    span("aten::gelu", 5, 0.5),
    span("aten::detach", 5.6, 0.0),
    span("aten::linear", 6, 4.0, sequence=9),
)


def attributed(
    spans: Sequence[Span], backward: Sequence[Span] = (), calls: Sequence[OperatorCall] = ()
) -> Attributed:
    """No second is lost."""
    found = attribute(ProfiledRun(tuple(spans), tuple(backward), ()), CALLS, calls, ())
    assert sum(found.seconds.values()) == sum(span.whole for span in (*spans, *backward))
    return found


def test_calls_meet_in_order() -> None:
    first, flatten, gelu, detach, last = SPANS
    found = attributed(SPANS)
    assert (found.matched, found.expected, found.complete) == (4, 4, True)
    assert found.seconds["forward", "a", "aten::linear", ((2, 2),)] == 3.0  # its addmm's too
    assert found.seconds["forward", "a", "aten::view", ((2, 2),)] == 0.125
    assert found.seconds["forward", "b", "aten::gelu", ((2, 2),)] == 0.5  # in place or not
    assert found.seconds["forward", "a", "aten::flatten", ()] == 0.25  # the wrapper's own
    assert not found.unseen
    # An operator that was not counted is named.
    found = attributed([first, flatten, gelu, span("aten::sigmoid", 5.5, 0.75), detach, last])
    assert found.complete
    assert dict(found.unseen) == {"aten::sigmoid": 1}
    assert found.seconds["forward", "b", "aten::sigmoid", ()] == 0.75
    # A call that is missing leaves the forward unmatched.
    found = attributed([first, flatten, detach, last])
    assert (found.matched, found.complete) == (2, False)


def test_the_backward_goes_where_its_node_was_made() -> None:
    """Node 7 was made by a's linear, node 9 by b's; a node without a number of its own, before."""
    nodes = (
        span(f"{NODE}AddmmBackward0", 20, 0.5, span("aten::mm", 20, 2.0), sequence=9),
        span(f"{NODE}MyFunctionBackward", 30, 0.25, span("aten::mm", 30, 1.0), sequence=8),
        span(f"{NODE}torch::autograd::AccumulateGrad", 40, 0.125, sequence=-1),
    )
    mm = [call("aten::mm", module, "backward") for module in "ab"]
    found = attributed(SPANS, nodes, mm)
    assert found.seconds["backward", "b", "aten::mm", ()] == 2.0
    assert found.seconds["backward", "a", "aten::mm", ()] == 1.0
    assert found.seconds["backward", GRADIENTS, "AccumulateGrad", ()] == 0.125


def test_runs_take_other_threads_in_by_their_time() -> None:
    step = span(STEP, 8, 0.0, span("aten::add_", 8, 1.0))
    run = span(RUN, 0, 1.0, span(FORWARD, 0, 0.0, span("aten::add", 0, 1.0)), step)
    other = span(f"{NODE}AddBackward0", 1.5, 0.5)
    (found,) = runs_of([run, other, span("aten::mul", 99, 1.0)])
    assert [s.name for s in found.forward] == ["aten::add"]
    assert [s.name for s in found.backward] == [other.name]
    assert [s.name for s in found.step] == ["aten::add_"]


def event(name: str, start: float, end: float, *kernels: float, on: str = "CPU") -> Any:
    """As torch's profiler has them, in microseconds."""
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start, end=end),
        kernels=[SimpleNamespace(duration=kernel) for kernel in kernels],
        device_type=SimpleNamespace(name=on),
        cpu_parent=None,
        cpu_children=[],
        is_async=False,
        sequence_nr=-1,
        self_cpu_time_total=end - start,
    )


def test_on_a_gpu_it_is_the_kernels_time_of_the_operator_that_launched_them() -> None:
    run = event(RUN, 0, 100, 500.0)  # a range's counterpart on the GPU is no kernel
    forward = event(FORWARD, 0, 50, 400.0)
    linear, launch = event("aten::linear", 1, 9), event("cudaLaunchKernel", 3, 4)
    addmm = event("aten::addmm", 2, 8, 30.0, 10.0)
    events = [run, forward, linear, addmm, launch, event("gemm", 60, 99, on="CUDA")]
    for parent, child in ((run, forward), (forward, linear), (linear, addmm), (addmm, launch)):
        child.cpu_parent = parent
        parent.cpu_children.append(child)
    (found,) = runs_of(spans_of(events, gpu=True))
    (only,) = found.forward
    assert only.name == "aten::linear"
    assert only.whole == pytest.approx(40e-6)
    assert only.children[0].children == ()


def test_names() -> None:
    assert canonical("aten::gelu_") == canonical("aten::gelu")
    assert canonical("aten::__and__") == "aten::__and__"
    assert canonical("aten::_unsafe_view") == "aten::view"
    assert is_composite("aten::reshape")
    assert not is_composite("aten::clone")
    assert not is_composite("mine::unheard_of")


@pytest.mark.parametrize(
    ("name", "attention", "mode"),
    [
        ("dat_t", "eager", "inference"),
        ("dat_t", "sdpa", "step"),
        ("datpp_t", "sdpa", "inference"),
        ("dat_t_ddetr_16_16", "chunked", "step"),
        ("timm:swin_tiny_patch4_window7_224", "sdpa", "inference"),
    ],
)
def test_every_call_of_a_model_is_matched(name: str, attention: Attention, mode: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
        spec, side = resolve(name), 224
    else:
        spec, side = short(name), 32
    setting = Setting(Resolution(side, side), device="cpu", attention=attention)
    with running(spec, setting, mode, False) as runner:  # type: ignore[arg-type]
        calls = count(runner.model, *runner.inputs.args, backward=mode == "step").calls
        seen = observe(runner, calls, torch.device("cpu"), 1)
    assert seen.reason is None
    assert seen.matched == seen.expected >= 0.99 * sum(c.phase == "forward" for c in calls)
    (run,) = seen.runs
    assert sum(run.unseen.values()) <= 0.02 * seen.expected
    if mode == "step":  # every product of the backward has its time, in its module
        products = {
            (c.module, c.operator) for c in calls if c.operator in ("aten::mm", "aten::bmm")
        }
        timed = {(key[1], key[2]) for key in run.seconds if key[0] == "backward"}
        assert len(products) > 30
        assert products <= timed


def test_a_model_is_left_as_it_was() -> None:
    setting = Setting(Resolution(32, 32), device="cpu")
    model = build_for_count(resolve("profile_nets:with_norm"), setting).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with unchanged(model), module_ranges(model):
        Runner(model, Inputs((torch.rand(2, 3, 32, 32),)), "step")()
    assert model.training
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not globals_of._global_forward_hooks
    assert not globals_of._global_forward_pre_hooks
