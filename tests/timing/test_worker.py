"""A worker's work in this process, and workers in theirs: every end is an outcome."""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from datbench import process, run
from datbench.errors import UsageError
from datbench.process import Ending, Reply
from datbench.setting import How, Resolution, Setting
from datbench.timing import process as timing_process
from datbench.timing import worker
from datbench.timing.process import check, check_compiler, time_in_process
from datbench.timing.records import Ceilings, ProcessTiming, Scatter
from datbench.timing.turns import Pipes
from datbench.timing.worker import TimingJob
from tests.processes import ctrl_c

from . import odd_models

T = TypeVar("T")

ODD = "tests.timing.odd_models"
SETTING = Setting(Resolution(32, 32), 2, device="cpu")
QUICK = How(budget=0.05, threads=1)

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def job_of(name: str, how: How = QUICK, **more: Any) -> TimingJob:
    return TimingJob(f"{ODD}:{name}", SETTING, how, **more)


def sent(value: T) -> T:
    """As it arrives in the other process."""
    plain = json.loads(json.dumps(process.packed(value)))
    found: T = process.unpacked(type(value), plain)
    return found


def work(name: str, how: How = QUICK, **more: Any) -> ProcessTiming:
    return sent(worker.work(sent(job_of(name, how, **more))))


# What is timed.


def runner(net: nn.Module, mode: Any = "inference") -> run.Runner:
    return run.Runner(net, run.Inputs((run.make_image(SETTING),)), mode)


def test_inference_is_in_inference_mode_and_evaluation() -> None:
    seen: list[tuple[bool, bool]] = []
    net = odd_models.Net(
        lambda x: seen.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
    ).eval()
    runner(net)()
    assert seen == [(True, False)]


def test_a_forward_that_takes_gradients_is_timed_with_a_graph() -> None:
    class Forces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.energy = nn.Linear(32, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.energy(x).sum(), x)[0]

    call = runner(Forces())
    call()
    call()


def test_a_training_iteration_is_forward_backward_and_step() -> None:
    net = odd_models.plain().train()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    call = runner(net, "step")
    call()
    first = {name: p.grad for name, p in net.named_parameters()}
    call()
    for name, p in net.named_parameters():
        assert p.grad is not None
        assert p.grad is not first[name]  # gradients do not add up
        torch.testing.assert_close(p.grad, first[name])  # a rate of 0: the same weights
        torch.testing.assert_close(p.detach(), before[name])
    # The sum of the outputs: each bias is in the mean of as many images as the batch has.
    torch.testing.assert_close(net.conv.bias.grad, torch.full((4,), 2.0), rtol=1e-3, atol=0)


def test_channels_last_is_of_weights_and_images() -> None:
    found = run.ready(f"{ODD}:plain", SETTING, How(channels_last=True))
    assert found.inputs.args[0].shape == (2, 3, 32, 32)
    assert found.inputs.args[0].is_contiguous(memory_format=torch.channels_last)
    assert isinstance(found.model.conv, nn.Conv2d)
    assert found.model.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_dtype_mode_and_attention_reach_the_model() -> None:
    half = Setting(Resolution(32, 32), 1, "bfloat16", "cpu", "sdpa")
    found = run.ready("dat_t", half, How(mode="step"))
    assert found.model.training
    assert found.inputs.args[0].dtype == next(found.model.parameters()).dtype == torch.bfloat16


# Outcomes, without a process.


def test_a_measured_answer_has_samples_threads_and_environment() -> None:
    found = work("plain")
    assert (found.outcome, found.reason) == ("measured", None)
    assert found.timing.samples
    assert found.threads == found.environment["torch_threads"] == 1
    assert found.telemetry.reason is not None
    assert found.ceilings is None


@pytest.mark.parametrize(
    ("name", "mode", "outcome", "part"),
    [
        ("always_fills", "inference", "out of memory", "can't allocate memory"),
        ("raises", "inference", "failed", "ValueError: no such thing as this"),
        ("no_gradient", "step", "failed", "no parameter of the model has a gradient"),
        ("no_such_factory", "inference", "failed", "no_such_factory"),
    ],
)
def test_what_a_model_raises_is_an_outcome(name: str, mode: Any, outcome: str, part: str) -> None:
    answer = work(name, how=How(mode=mode, budget=0.05))
    assert answer.outcome == outcome
    assert part in (answer.reason or "")
    assert answer.timing is None


def test_an_answer_of_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    peaks = Ceilings("cpu", "float32", 1, 1.0, 2, 3.0, 4, Scatter(1.0, 1.0, 1.0, 0.5, 1))
    expected = replace(work("plain", protocols=("dat",)), ceilings=peaks)
    answer = process.packed(expected)
    parts = (answer["timing"], answer["telemetry"], answer["ceilings"], *answer["protocols"])
    for part in (*parts, answer["ceilings"]["product"]):
        part["from_the_future"] = 1
    assert process.unpacked(ProcessTiming, answer) == expected


@POSIX
def test_ctrl_c_leaves_the_finished_samples() -> None:
    """The ninth call presses it: two calibrate the first sample's length at least."""
    answer = work("interrupts", how=How(budget=60.0, width=1e-9))
    assert answer.outcome == "interrupted"
    timing = answer.timing
    assert timing.stopped == "interrupted"
    assert len(timing.warmup) + len(timing.samples) == 8


@pytest.fixture
def other_side() -> Iterator[tuple[int, Pipes]]:
    """One that gives every turn back at once: what it is told, and this side's pipes."""
    (inward, theirs_out), (theirs_in, outward) = os.pipe(), os.pipe()
    os.write(theirs_out, 5000 * b".")
    yield theirs_in, Pipes(inward, outward, begins=True)
    for descriptor in (theirs_in, theirs_out):
        os.close(descriptor)


@POSIX
def test_a_short_time_is_shared_with_the_other_side(other_side: tuple[int, Pipes]) -> None:
    """Half of what is left is its own, whatever the other side takes."""
    told, turns = other_side
    left = 3.0
    begin, end = time.perf_counter(), time.time() + worker.MARGIN + left
    answer = work("plain", how=How(budget=60.0, threads=1), turns=turns, end=end)
    assert (answer.outcome, answer.timing.stopped) == ("measured", "timeout")
    assert time.perf_counter() - begin < 0.75 * left + worker.MARGIN
    assert answer.turns > 1
    assert os.read(told, 10_000).endswith(b".e")


@POSIX
def test_a_side_that_ends_badly_tells_the_other(other_side: tuple[int, Pipes]) -> None:
    told, turns = other_side
    answer = work("fills_later", how=How(budget=60.0, threads=1), turns=turns, end=time.time() + 60)
    assert (answer.outcome, answer.turns) == ("out of memory", None)
    assert os.read(told, 10_000).endswith(b"e")


def test_protocols_follow_where_they_fit() -> None:
    late = work("plain", protocols=("dat", "swin", "mmdet"), end=time.time() + 60)
    (found,) = late.protocols
    assert (found.protocol, found.warmup, found.calls) == ("dat", 50, 30)
    row = 2 / late.timing.median
    assert found.difference == pytest.approx(found.images_per_second / row - 1)
    assert late.refused["swin"] == "swin takes batches of 64"
    early = work("plain", protocols=("dat",), end=time.time())
    assert early.protocols == ()
    assert "--timeout" in early.refused["dat"]


def test_the_budget_ends_before_the_process_does() -> None:
    answer = work("plain", how=How(budget=60.0, width=1e-9), end=time.time() + 0.8)
    assert (answer.outcome, answer.timing.stopped) == ("measured", "timeout")
    whole = work("plain", end=time.time() + 60).timing
    assert whole.stopped != "timeout"


def test_ceilings_that_would_come_too_late_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ceilings", None)
    answer = work("plain", ceilings=True, end=time.time() + 0.8)
    assert answer.outcome == "measured"
    assert answer.refused == {"ceilings": "--timeout left no time for it"}


def fails() -> None:
    raise RuntimeError("no\nmore")


@pytest.mark.parametrize(
    ("call", "left", "said"),
    [
        (lambda: time.sleep(0.05), 0.2, "dat was slower than the samples; --timeout ended it"),
        (fails, math.inf, "RuntimeError: no more"),
    ],
)
def test_a_protocol_that_ends_badly_leaves_the_samples(
    call: Callable[[], object], left: float, said: str
) -> None:
    refused: dict[str, str] = {}
    job = job_of("plain", protocols=("dat",), end=time.time() + worker.MARGIN + left)
    assert not list(worker._follow(job, call, 1e-6, refused))
    assert refused == {"dat": said}


# Processes.


@pytest.mark.usefixtures("_at_the_root")
def test_a_process_that_takes_too_long_is_timed_out() -> None:
    found = time_in_process(f"{ODD}:sleeps", SETTING, QUICK, timeout=0.5)
    assert (found.outcome, found.reason) == ("timed out", "did not finish in 0.5 s")


def test_samples_outlive_what_comes_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_short_life.py").write_text(
        "import os\n"
        "from datbench.timing import worker\n"
        "worker.ceilings = lambda *_: os._exit(7)\n"
        "work = worker.work\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timing_process, "WORKER", "a_short_life:work")
    found = time_in_process("torch.nn:Flatten", SETTING, QUICK, ceilings=True)
    assert (found.outcome, found.ceilings) == ("measured", None)
    assert found.timing is not None
    assert found.refused == {"ceilings": "the process did not finish it (exit code 7)"}
    assert found.environment["datbench_from"] == str(process.PACKAGES)


def test_another_checkout_and_another_interpreter_are_what_runs(
    tmp_path: Path, made_up: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working directory holds yet another datbench, which is not taken."""
    there, here = (made_up(name, outcome="failed", reason=name) for name in ("there", "here"))
    monkeypatch.chdir(here)
    found = time_in_process("dat_t", SETTING, QUICK, source=there)
    assert (found.outcome, found.reason) == ("failed", "there")
    with pytest.raises(UsageError, match="name a Python interpreter"):
        time_in_process("dat_t", SETTING, QUICK, python=str(tmp_path / "no_python"))


def test_ctrl_c_in_the_parent_is_an_outcome_with_what_the_worker_had() -> None:
    answer = work("plain")

    def ends(reply: Reply[ProcessTiming]) -> ProcessTiming:
        return timing_process.timing_of(reply, 60.0, "cpu", 1.0)

    # The other side of a pair was told first, and this one found that its time was over.
    over = replace(answer, turns=3, timing=replace(answer.timing, stopped="timeout"))
    for turns, stopped in ((3, "interrupted"), (None, "timeout")):
        found = ends(Reply(replace(over, turns=turns), interrupted=True))
        assert (found.outcome, found.timing.stopped) == ("interrupted", stopped)
    kept = ends(Reply(answer, interrupted=True))
    assert (kept.outcome, kept.reason) == ("interrupted", "by Ctrl-C")
    assert kept.timing is not None
    for code in (-2, None):
        lost = ends(Reply(None, Ending(code, ""), interrupted=True))
        assert (lost.outcome, lost.timing) == ("interrupted", None)


WORKER = """
import pathlib, time

def work(job):
    try:
        pathlib.Path(job["begun"]).touch()
        time.sleep(60)
    except KeyboardInterrupt:
        if job["stubborn"]:
            time.sleep(60)
        return {"kept": 3}
"""


@POSIX
@pytest.mark.parametrize("stubborn", [False, True])
def test_a_process_with_patience_is_told_of_ctrl_c_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubborn: bool
) -> None:
    (tmp_path / "a_patient_worker.py").write_text(WORKER)
    monkeypatch.chdir(tmp_path)
    begun = tmp_path / "begun"
    job = {"begun": str(begun), "stubborn": stubborn}
    with ctrl_c(begun.exists):
        reply = process.ask(
            "a_patient_worker:work", job, dict, 30, patience=0.3 if stubborn else 10.0
        )
    assert reply.interrupted
    if stubborn:
        assert (reply.answer, reply.ending) == (None, Ending(None, ""))
    else:
        assert (reply.answer, reply.ending) == ({"kept": 3}, None)


# What is refused.


@pytest.mark.parametrize(
    ("device", "how", "part"),
    [
        ("cuda:99", How(), "'cuda:99' is not available here"),
        ("meta", How(), "not on 'meta'"),
        ("no_device", How(), "not on 'no_device'"),
        ("cpu", How(flush=True), "on a GPU only"),
        ("cpu", How(threads=0), "threads 0"),
        ("cpu", How(budget=0.0), "above 0"),
        ("cpu", How(width=float("inf")), "finite numbers above 0"),
        ("cpu", How(mode="walk"), "choose one of inference, step"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_run_is_refused_before_a_process(device: str, how: How, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        check(Setting(Resolution(32, 32), device=device), how)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"there is no 'no_such_compiler' here.*--compile"):
        check_compiler("cpu", {"CXX": "no_such_compiler -O2"})
    monkeypatch.setattr(timing_process.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs triton"):
        check_compiler("cuda")
