"""The pytest plugin in suites of its own."""

import importlib.metadata
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from datbench.errors import UsageError
from datbench.testing import assert_macs, flops, memory

from .nets import Net

pytest_plugins = ["pytester"]

# pytest loads an installed package's plugin itself, and takes it once.
INSTALLED = bool(importlib.metadata.entry_points(group="pytest11", name="datbench"))
NAMED = () if INSTALLED else ("-p", "datbench.pytest_plugin")
PLUGIN = (*NAMED, "-p", "no:cacheprovider", "-p", "no:benchmark")


def net() -> nn.Sequential:
    """640 MACs, then 320."""
    return nn.Sequential(nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 8))


X = torch.zeros(2, 16)


def test_right_figures_pass() -> None:
    found = flops(net(), X)
    assert (found.total, int(found), found.unit) == (960, 960, "MAC")
    assert found.by_module() == {"0": 640, "1": 0, "2": 320}
    assert (found.of("2"), found.unknown(), sum(found.by_operator().values())) == (320, {}, 960)
    assert flops(net(), X, convention="torch").total == 1920
    assert flops(net(), X, backward=True).total > 960
    with torch.device("meta"):
        assert flops(net(), torch.empty(2, 16)).total == 960
    for inputs, expected in (
        (X, 960),
        (X, 9.6e2),  # whole numbers may be floats
        (X, {"0": 640.0}),
        ((X,), {"0": 640, "2": 320, "(model)": 960}),
    ):
        assert_macs(net(), inputs, expected)
    assert_macs(net(), X, 1920, convention="torch")


def failure_of(model: nn.Module, expected: Any, **options: Any) -> list[str]:
    """The lines with which an assertion fails."""
    with pytest.raises(AssertionError) as caught:
        assert_macs(model, X, expected, **options)
    return str(caught.value).splitlines()


def test_a_wrong_figure_says_where_the_macs_are() -> None:
    """A mapping names the module that changed."""
    first, *rest = failure_of(net(), 961)
    assert first == "the model: 960, expected 961 (-1, -0.104 %)"
    words = [line.split() for line in rest]
    assert ["640", "MAC", "66.7", "%", "0"] in words
    assert ["320", "MAC", "33.3", "%", "2"] in words
    assert any(line.endswith("aten::linear") for line in rest)
    assert failure_of(net(), 1e3)[0].endswith("960, expected 1,000 (-40, -4 %)")
    lines = failure_of(net(), {"0": 640, "2": 300, "3": 1})
    assert lines[:3] == [
        "2 of 3 modules are not as expected (MACs):",
        "2: 320, expected 300 (+20, +6.67 %)",
        "3: nothing ran in a module of this name",
    ]
    assert not any(line.startswith("0:") for line in lines)
    with pytest.raises(KeyError):
        flops(net(), X).of("3")


class Factored(Net, linear=lambda: nn.Linear(16, 20)):
    """A linear layer, and then an operator that no rule counts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.qr(self.linear(x)).R


def test_an_operator_without_a_rule_fails() -> None:
    name = "aten::linalg_qr"
    for expected in (640, {"linear": 640, "(model)": 640}):
        first, *_ = failure_of(Factored(), expected)
        assert first.startswith(f"without a rule, counted as nothing: {name} (1 call); name them")
        assert "in allow_unknown" in first
    assert flops(Factored(), X).unknown() == {name: 1}
    assert_macs(Factored(), X, {"linear": 640})  # nothing of it ran there
    for allowed in (True, [name], name):
        assert_macs(Factored(), X, 640, allow_unknown=allowed)
    inside = nn.Sequential()
    inside.add_module("body", Factored())
    assert flops(inside, X).unknown("body") == {name: 1}
    assert name in failure_of(Factored(), 640, allow_unknown=["aten::other"])[0]


@pytest.mark.parametrize(
    ("inputs", "expected", "said"),
    [
        (X, {}, "expected is an empty mapping"),
        (X, 960.5, "expected is 960.5: give a whole number."),
        (X, {"0": "640"}, "expected of 0 is '640': give a whole number."),
        (X, None, "expected is None"),
        (X, True, "expected is True"),
        (X, float("nan"), "expected is nan"),
        (X, float("inf"), "expected is inf"),
        ([X], 960, "inputs is a list: give a tensor or a tuple of arguments"),
        ({"input": X}, 960, "inputs is a dict: give a tensor or a tuple of arguments"),
    ],
)
def test_what_cannot_be_meant_is_refused(inputs: Any, expected: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        assert_macs(net(), inputs, expected)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


class Named(Net, linear=lambda: nn.Linear(16, 20)):
    def forward(self, *, x: torch.Tensor, times: int = 1) -> torch.Tensor:
        for _ in range(times):
            y = self.linear(x)
        return y


def test_arguments_with_names() -> None:
    model = Named()
    assert_macs(model, (), 1280, kwargs={"x": X, "times": 2})
    assert flops(model, kwargs={"x": X}).total == 640
    assert flops(model, kwargs={"x": X}, backward=True).total > 640
    with pytest.raises(TypeError):
        model(times=1)  # the model is as it was


def test_a_shared_module_counts_under_its_first_path() -> None:
    layer = nn.Linear(16, 16)
    model = nn.Sequential(layer, nn.Sequential(nn.ReLU(), layer))
    assert_macs(model, X, {"0": 1024, "(model)": 1024})
    assert "1.1: this is 0, and what it runs stands there" in failure_of(model, {"1.1": 512})
    with pytest.raises(KeyError, match="this is 0"):
        flops(model, X).of("1.1")


def test_memory_of_plain_modules() -> None:
    model = net()
    found = memory(model, X, mode="inference")
    weights = 4 * (16 * 20 + 20 + 20 * 8 + 8)
    assert (found["parameters"], found["inputs"], found.kept) == (weights, 4 * 2 * 16, None)
    trained = memory(model, X)
    assert trained.kept >= 4 * 2 * 20
    assert trained.peak >= found.peak >= weights
    assert trained == memory(net(), kwargs={"input": X})
    # AdamW: two moments, and a count of steps for each of the four tensors.
    assert memory(model, X, mode="step")["optimizer"] == 2 * weights + 4 * 4
    assert not any(parameter.is_meta for parameter in model.parameters())
    with pytest.raises(KeyError, match="nope: the ledger has parameters, buffers, inputs, kept"):
        found["nope"]  # type: ignore[index]


class Scales(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(3)  # neither a parameter nor a buffer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def test_memory_of_plain_and_shared_tensors() -> None:
    model = Scales()
    assert memory(model, torch.zeros(2, 3), mode="inference").peak >= 2 * 3 * 4
    assert model.scale.device.type == "cpu"
    shares = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    shares[1].weight = shares[0].weight
    assert memory(shares, X)["parameters"] == 4 * (16 * 16 + 2 * 16)


SUITE = """
    import torch
    from torch import nn

    def test_count(datbench_flops):
        assert datbench_flops(nn.Linear(3, 4), torch.zeros(1, 3)).total == 12

    def test_memory(datbench_memory):
        assert datbench_memory(nn.Linear(3, 4), torch.zeros(1, 3))["parameters"] == 64

    def test_wrong(assert_macs):
        assert_macs(nn.Sequential(nn.Linear(3, 4)), torch.zeros(1, 3), {"0": 13})
"""


def test_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    ran = pytester.runpytest(*PLUGIN, "-p", "no:xdist")
    ran.assert_outcomes(passed=2, failed=1)
    ran.stdout.fnmatch_lines(["E *AssertionError: 1 of 1 modules are not as expected (MACs):"])
    ran.stdout.fnmatch_lines(["E *0: 12, expected 13 (-1, -7.69 %)"])
    ran.stdout.no_fnmatch_line("*datbench/testing.py*")  # the failure stands in the user's line


def test_nothing_is_loaded_for_suites_that_do_not_use_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor before a fixture is called; in a worker of xdist, where there is one."""
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            assert "datbench.pytest_plugin" in sys.modules
            heavy = {"torch", "numpy", "pandas", "timm", "datbench.testing"}
            assert heavy & set(sys.modules) == set()

        def test_there(datbench_flops, datbench_memory, assert_macs):
            assert "torch" not in sys.modules
            assert callable(datbench_flops) and callable(datbench_memory) and callable(assert_macs)
        """
    )
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # others take seconds
    beside = ("-p", "xdist", "-n", "1") if find_spec("xdist") else ()
    ran = pytester.runpytest_subprocess("-p", "datbench.pytest_plugin", *beside)
    ran.assert_outcomes(passed=2)
    # In the metadata of an installed package; a checkout may have been installed before.
    found = importlib.metadata.entry_points(group="pytest11", name="datbench")
    assert {each.value for each in found} <= {"datbench.pytest_plugin"}


def test_the_page_is_true(pytester: pytest.Pytester) -> None:
    """The example of docs/pytest.md passes, and fails in its words."""
    page = (Path(__file__).parents[1] / "docs" / "pytest.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w+[^\n]*\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    source = next(block for block in blocks if "def test_macs(" in block)
    pytester.makepyfile(test_cost=source)
    pytester.runpytest(*PLUGIN, "-p", "no:xdist").assert_outcomes(passed=4)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    with pytest.raises(AssertionError) as caught:
        assert_macs(model, torch.zeros(1, 3, 32, 32), {"0": 221_184, "2": 30_000})
    assert f"{caught.value}\n" in blocks
