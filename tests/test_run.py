"""What is counted is what is run: one image, one fallback, the model as it is."""

import copy
import json
import threading
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import datbench
from datbench import testing
from datbench.counting.conventions import CONVENTIONS
from datbench.counting.count import count_row, parameters
from datbench.errors import DatbenchWarning, MeasurementError, UsageError
from datbench.memory.device import profiled
from datbench.models.mixers.grids import sample
from datbench.models.resolve import resolve
from datbench.run import make_inputs, ready
from datbench.setting import How, Recipe, Resolution, Setting

from . import nets_as_run as nets
from .cli.conftest import run as run
from .cli.runner import Run

FVCORE = CONVENTIONS["fvcore"]
SIZE = Resolution(32, 32)
CPU = Setting(SIZE, device="cpu")
NETS = "tests.nets_as_run"
HALVES = (torch.bfloat16, torch.float16)

# Quantization is torchao's since torch 2.10, and says so; scripts are deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def test_every_command_falls_back_to_the_cpu_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"{NETS}:Reads"
    macs = 4 * 27 * 1024
    for command, figure in (
        (("flops", name), macs),
        (("explain", name), macs),
        (("plot", "cost", name), None),
        (("plot", "memory", name), None),
        (("memory", name, "--mode", "backward"), None),
        (("memory", "largest", name, "--memory", "600MiB"), None),
        (("report", name, "--tables", "none", "--plots", "none", "--out", "out"), None),
    ):
        wanted = ("--format", "json") if figure else ()
        result = run(*command, "--res", "32", *wanted)
        assert result.code == 0, result.err
        said = [line for line in result.err.splitlines() if "warning" in line]
        assert len(said) == 1, result.err
        assert f"{name} does not run without values; it was run with real ones" in said[0]
        if figure:
            (row,) = json.loads(result.out)["rows"]
            assert (row["macs"], row["setting"]["device"]) == (figure, "cpu")


def test_a_count_is_of_the_image_that_is_timed() -> None:
    spec = resolve(f"{NETS}:Drops")
    with pytest.warns(DatbenchWarning) as said:
        row = count_row(spec, Setting(SIZE), FVCORE)
    assert any("the count depends on the input" in str(each.message) for each in said)
    assert any("does not run without values" in str(each.message) for each in said)
    runner = ready(spec, CPU, How())
    assert row.macs == datbench.count(runner.model, *runner.inputs.args).multiply_adds()
    with pytest.warns(DatbenchWarning, match="on the image that is timed"):
        assert datbench.count_model(spec, CPU).multiply_adds() == row.macs
    # Another image has other work, so that the two agree for a reason.
    other = make_inputs(CPU, runner.model, number=1).args[0]
    assert datbench.count(runner.model, other).multiply_adds() != row.macs


def test_images_and_weights_are_the_same_in_every_process() -> None:
    first, second = (ready(f"{NETS}:plain", CPU, How()) for _ in range(2))
    assert torch.equal(first.inputs.args[0], second.inputs.args[0])
    assert first.inputs.args[0].std() > 0.9
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("training", [False, True])
def test_a_count_leaves_the_model_as_it_was(training: bool) -> None:
    model = nets.Remembers().train(training)
    before = copy.deepcopy(model)
    for backward in (False, True):
        datbench.count(model, torch.randn(3, 8), backward=backward)
    assert model.state_dict().keys() == before.state_dict().keys()
    for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert (model.calls, model.seen, model.cache, model.training) == (0, [], {}, training)
    assert not any(buffer.requires_grad for buffer in model.buffers())


@pytest.mark.parametrize(
    ("name", "trainable", "frozen"),
    [
        ("plain", nets.WEIGHTS, 0),
        ("traced", nets.WEIGHTS, 0),
        ("scripted", nets.WEIGHTS, 0),
        ("frozen", 0, nets.WEIGHTS),
        ("exported", nets.WEIGHTS, 0),
        ("program", nets.WEIGHTS, 0),
        ("graph", nets.WEIGHTS, 0),
        ("quantized", 0, nets.WEIGHTS),
        ("dynamic", 4 * 27 + 4, 5 * 4096 + 5),
        ("Grows", 4 * 27 + 4 + 10 * 3600 + 10, 0),
    ],
)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_models_in_other_forms(name: str, trainable: int, frozen: int, device: str) -> None:
    """All are counted, with all of their weights."""
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always", DatbenchWarning)
        row = count_row(resolve(f"{NETS}:{name}"), Setting(SIZE, device=device), FVCORE)
    expected = 4 * 27 * 900 + 36000 if name == "Grows" else nets.MACS
    assert (row.macs, row.params, row.frozen, row.unknown) == (expected, trainable, frozen, {})


def test_what_no_dispatcher_sees_is_refused(run: Run) -> None:
    assert "optimize_for_inference" in run("flops", f"{NETS}:fused", "--res", "32").complaint()


def test_no_parameters_are_not_zero_without_a_word(run: Run) -> None:
    assert ", 20.597 K frozen parameters" in run("flops", f"{NETS}:quantized", "--res", "32").out
    for command in ("flops", "params", "memory"):
        size = () if command == "params" else ("--res", "32")
        mode = ("--mode", "inference") if command == "memory" else ()
        assert "registers no parameters" in run(command, f"{NETS}:Listed", *size, *mode).err


def test_a_model_in_half_precision_gets_its_images(run: Run) -> None:
    for command in ("flops", "memory", "explain"):
        (row,) = run(command, f"{NETS}:half", "--res", "32", "--format", "json").rows
        assert row["setting"]["dtype"] == "float16"
        assert row.get("macs", nets.MACS) == nets.MACS


def test_each_module_keeps_its_training_flag() -> None:
    flags = [m.training for m in ready(f"{NETS}:tuned", CPU, How("step")).model.modules()]
    assert flags == [True, True, False, True]
    assert not any(m.training for m in ready(f"{NETS}:tuned", CPU, How()).model.modules())
    # A factory that returns a model for inference has it trained all the same.
    assert all(m.training for m in ready(f"{NETS}:plain", CPU, How("step")).model.modules())


def test_lazy_modules_in_python() -> None:
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(10))
    x = torch.zeros(nets.IMAGE)
    with pytest.raises(UsageError, match="has no size yet: run the model once"):
        parameters(lazy)
    assert datbench.count(lazy, x).multiply_adds() == 4 * 27 * 900 + 36000
    assert testing.memory(lazy, x)["parameters"] == 4 * (4 * 27 + 4 + 36010)
    assert isinstance(lazy[0], nn.LazyConv2d)  # as it was


class _Uncopied(nn.Module):
    """Refuses a copy, keeps a tensor in a list, and makes one where it says that it is."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.lock = nn.Linear(8, 64), threading.Lock()
        self.shifts, self.device = [torch.zeros(64)], torch.device("cpu")

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x) + self.shifts[0]) * torch.ones(64, device=self.device)


@pytest.mark.parametrize("mode", ["inference", "backward", "step"])
def test_memory_of_a_model_that_stays_where_it_is(mode: str) -> None:
    model, x = _Uncopied(), torch.randn(50, 8)
    before = model.linear.weight.detach().clone()
    with pytest.warns(DatbenchWarning, match="does not run without values"):
        found = testing.memory(model, x, mode=mode)
    measured = profiled(model, x, mode=mode, recipe=Recipe().of(mode))
    assert found.peak == pytest.approx(measured.peak, rel=0.02)
    assert torch.equal(model.linear.weight, before)
    assert model.linear.weight.grad is None


def _raise(error: Exception) -> Callable[..., Tensor]:
    def forward(x: Tensor) -> Tensor:
        raise error

    return forward


def test_what_fails_everywhere_is_told_once() -> None:
    model = nets.plain()
    model.forward = _raise(ValueError("nowhere"))
    with pytest.raises(ValueError, match="nowhere"):
        testing.memory(model, torch.zeros(nets.IMAGE))
    with pytest.raises(MeasurementError, match=r"at 64x64 on meta: mat1 .*, Linear\)$"):
        datbench.count_model(f"{NETS}:plain", Setting(Resolution(64, 64)))


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_samples_where_it_should(dtype: torch.dtype) -> None:
    """On a CPU too, and on maps whose addresses half precision does not hold."""
    maps = torch.rand(1, 24, 24, 64).permute(0, 3, 1, 2)  # channels last
    points = (torch.rand(1, 50, 1, 2) * 2 - 1).to(dtype)
    exact = sample(maps, points.float())
    assert (sample(maps.to(dtype), points).float() - exact).abs().max() < 0.01


EVERY = product(datbench.list_models(), ("eager", "sdpa"), ((224, 224), (800, 1280)), HALVES)


@pytest.mark.parametrize(
    ("name", "attention", "size", "dtype"),
    [
        ("dat_t", "sdpa", (224, 224), torch.bfloat16),
        ("datpp_t", "sdpa", (224, 224), torch.float16),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in EVERY),
    ],
)
def test_a_variant_in_half_precision_computes_what_it_does_in_full(
    name: str, attention: Any, size: tuple[int, int], dtype: torch.dtype
) -> None:
    """To half precision's rounding of 20 layers, and the same twice."""
    model = datbench.create_model(name, attention=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.5 * (parameter.ndim < 2), 0.05)
        image = torch.randn(1, 3, *size)
        exact = model(image)
        model.to(dtype)
        half, again = (model(image.to(dtype)).float() for _ in range(2))
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()
    assert torch.equal(half, again)


HALF = ("--dtype", "bfloat16", "--device", "cpu", "--format", "json")


@pytest.mark.usefixtures("_no_processes")
@pytest.mark.parametrize(
    ("command", "name", "said"),
    [
        (("flops",), "dat_t_ddetr_16_16", "samples in float32 on a CPU"),
        (("flops",), f"{NETS}:Samples", "cast to float32"),
        (("profile", "--budget", "0.1"), f"{NETS}:Samples", "cast to float32"),
        (("throughput", "--budget", "0.1"), f"{NETS}:Samples", "cast to float32"),
        (("memory", "measure"), f"{NETS}:Samples", "cast to float32"),
    ],
)
def test_sampling_in_half_precision_on_a_cpu_is_told(
    run: Run, command: tuple[str, ...], name: str, said: str
) -> None:
    assert run(*command, name, "--res", "32", *HALF).err.count(said) == 1


@pytest.mark.usefixtures("_no_processes")
@pytest.mark.parametrize("command", [("throughput", "--budget", "0.1"), ("memory", "measure")])
def test_a_run_that_fails_names_the_module(run: Run, command: tuple[str, ...]) -> None:
    found = run(*command, f"{NETS}:plain", "--res", "64", "--device", "cpu")
    assert found.code == 5
    assert "cannot be multiplied (1x16384 and 4096x5) (in 3, Linear)" in found.err
