"""Costs from Python: values by pencil, what is printed and shown, modules left as they were."""

import copy
import html
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import datbench
from datbench import Result
from datbench.errors import UsageError

from .nets import Net

pytestmark = pytest.mark.filterwarnings("ignore:the machine is loaded")

IMAGES = torch.zeros(2, 3, 8, 8)
MACS = 2 * (4 * 27 * 36 + 144 * 5)  # of two images: a convolution to 6x6, and a linear layer


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 5)
    )


class Named(Net, linear=lambda: nn.Linear(4, 5)):
    """Takes its tensor by name; `mode` is the name of an option too."""

    def forward(self, *, tokens: Tensor, mode: Tensor | None = None) -> Tensor:
        return self.linear(tokens if mode is None else tokens + mode)


@pytest.mark.parametrize(
    "order",
    [
        "import datbench; datbench.memory; from datbench.memory.records import GPUS as found",
        "from datbench.memory import simulate as found; from datbench import compare, memory",
    ],
)
def test_packages_that_are_functions_stay_packages(order: str) -> None:
    code = f"""{order}
import datbench, datbench.memory.view, datbench.compare.records, inspect
assert found
assert 'optimizer' in inspect.signature(datbench.memory).parameters
assert datbench.compare.records.PROCESSES == 10
for function in (datbench.memory, datbench.compare):
    try: function('dat_t', 'dat_t', mode='no_mode')
    except datbench.DatbenchError as error: assert 'no_mode' in str(error)
    else: raise AssertionError(function)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_module_counts_what_its_layers_do() -> None:
    model = net()
    found = datbench.flops(model, IMAGES)
    assert (found.macs, found.params) == (MACS, 4 * 27 + 144 * 5 + 5)
    assert (found.setting.batch, str(found.setting.resolution)) == (2, "8x8")
    assert datbench.flops(model, res=8, batch=2).macs == MACS
    assert datbench.flops(model, IMAGES, convention="torch").flops == 2 * MACS
    assert datbench.count(model, IMAGES).total("fvcore") == MACS
    # Inputs of any size have a setting.
    long = torch.empty(1, 1, 1, 40_000, device="meta")
    assert datbench.flops(nn.Conv2d(1, 1, 1, bias=False).to("meta"), long).macs == 40_000
    many = torch.empty(2**21, 1, device="meta")
    assert datbench.flops(nn.Linear(1, 1, bias=False), many).macs == 2**21


@pytest.mark.parametrize(
    "named",
    [
        {"tokens": torch.zeros(7, 4)},
        {"kwargs": {"tokens": torch.zeros(7, 4), "mode": torch.zeros(7, 4)}},
    ],
)
def test_named_inputs_reach_the_forward(named: dict[str, Any]) -> None:
    given = named.get("kwargs", named)
    assert datbench.flops(Named(), **named).macs == 7 * 20
    held = datbench.memory(Named(), mode="inference", **named)
    assert held.line("inputs").amount == 4 * 28 * len(given)
    assert held.line("parameters").amount == 4 * 25
    assert "tokens=float:7x4" in held.setting.inputs
    timed = datbench.throughput(Named(), budget=0.01, device="cpu", **named)
    assert (timed.macs, timed.outcome) == (7 * 20, "measured")


def test_several_make_a_sequence() -> None:
    found = datbench.flops(["dat_t", "datpp_t"], res=["64", (96, 64)], batch=[1, 2])
    assert len(found) == 8
    assert [str(row.setting.resolution) for row in found][:3] == ["64x64", "64x64", "96x64"]
    assert found.macs[1] == 2 * found.macs[0]
    assert list(found.to_dataframe()["macs"]) == list(found.macs) == [row.macs for row in found]
    assert "rows" not in found.to_dataframe()
    assert {"macs", "stages", "by", "plot"} <= set(dir(found))
    for function in (datbench.flops, datbench.memory, datbench.throughput, datbench.compare):
        assert {"res", "batch", "dtype", "mode"} <= set(inspect.signature(function).parameters)


RESULTS: dict[str, Callable[[], Result]] = {
    "flops dat_t --res 64": lambda: datbench.flops("dat_t", res=64),
    "flops dat_t --res 64 --by stage": lambda: datbench.flops("dat_t", res=64).by("stage"),
    "flops dat_t --res 64 --by module --depth 2": (
        lambda: datbench.flops("dat_t", res="64x64").by("module", 2)
    ),
    "flops dat_t datpp_t --res 64": lambda: datbench.flops(["dat_t", "datpp_t"], res=64),
    "memory dat_t --res 64 --mode step": lambda: datbench.memory("dat_t", res=64, mode="step"),
    "table 1": lambda: datbench.table(1),
    "throughput": lambda: datbench.throughput(net(), IMAGES, budget=0.01),
    "compare": lambda: datbench.compare(net(), net(), IMAGES, budget=0.001, seed=1),
}


@pytest.mark.parametrize("command", RESULTS)
def test_a_result_shows_what_the_command_prints(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from datbench.cli.main import main

    found = RESULTS[command]()
    print(found)
    printed = capsys.readouterr().out
    assert len(repr(found)) < 400
    assert repr(found).startswith(f"<datbench {command.split()[0]}: ")
    if " " in command:
        assert main(command.split()) == 0
        assert printed == capsys.readouterr().out
    shown = html.unescape(found._repr_html_())
    for table in found.tables():
        for text in (table.title, *(column.title for column in table.visible())):
            assert text in shown
        cells = re.findall(r"<td>(.*?)</td>", shown)
        assert {cell for row in table.shown() for cell in row} <= set(cells)


def test_a_breakdown_adds_up() -> None:
    found = datbench.flops("dat_t", res=64)
    for name in ("stage", "operator", "module", "part"):
        parts = found.by(name)
        frame = parts.to_dataframe()
        assert frame["macs"].sum() == sum(row.amount for row in parts) == found.macs
        assert len(frame) == len(parts)
    held = datbench.memory("dat_t", res=64)
    assert held.by("stage").to_dataframe()["kept"].sum() == held.line("kept").amount


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: datbench.flops("dat_t", bacth=2), "dat_t: there is no option 'bacth'"),
        (lambda: datbench.flops("dat_t", IMAGES), "say a size with res= and batch="),
        (lambda: datbench.flops(net(), IMAGES, res=8), "leave out res and batch"),
        (lambda: datbench.flops(Named(), token=IMAGES), "argument of Named 'token'; did you mean"),
        (lambda: datbench.flops(IMAGES), "a Tensor is not a model"),
        (lambda: datbench.flops("dat_t", res="12y"), "resolution '12y' is not understood"),
        (lambda: datbench.flops("dat_t", mode="step"), "unknown mode 'step'"),
        (lambda: datbench.flops("dat_t", res=64).by("layer"), "choose one of part, stage"),
        (lambda: datbench.table(1).by("stage"), "unknown breakdown of <datbench table"),
        (lambda: datbench.table(1).plot(), "a result of table has no plot"),
        (lambda: datbench.memory(net(), IMAGES, device="cpu"), "leave out device"),
        (lambda: datbench.throughput(net(), IMAGES, device="meta"), "not on 'meta'"),
        (lambda: datbench.compare(net(), net(), IMAGES, processes=3), "even numbers"),
        (lambda: datbench.compare(net(), net(), IMAGES, threshold=0), "a percentage above 0"),
        (lambda: datbench.flops([]), "name a model"),
        (lambda: datbench.throughput([]), "name a model"),
    ],
)
def test_what_is_wrong_is_said(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()


def test_a_table_may_be_a_plain_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("model,flops\ndat_t,4.6G\n")
    (found,) = datbench.table(file)
    assert [cell.verdict for cell in found.cells()] == ["agrees"]


def test_modules_are_compared_under_autocast() -> None:
    seen = []

    class Tells(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = super().forward(x)
            seen.append((found.dtype, bool(x.any())))
            return found

    one, other, x = Tells(4, 4), Tells(4, 4), torch.zeros(2, 4)
    (row,) = datbench.compare(one, other, x, dtype="amp-bf16", budget=0.001, device="cpu")
    assert row.a.how.autocast == row.b.how.autocast == "bfloat16"
    assert set(seen) == {(torch.bfloat16, False)}  # on what was given, in what was asked


def test_a_module_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU())
    model[1].eval()
    before, flags = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    torch.manual_seed(3)
    chance = torch.get_rng_state()
    datbench.flops(model, IMAGES + 1)
    datbench.flops(model, IMAGES + 1, mode="backward", device="cpu", dtype="bf16")
    datbench.memory(model, IMAGES + 1, mode="step")
    datbench.throughput(model, IMAGES + 1, mode="step", budget=0.01)
    assert torch.equal(torch.get_rng_state(), chance)
    assert [m.training for m in model.modules()] == flags
    assert not hasattr(model, "example_inputs")
    assert all(parameter.grad is None for parameter in model.parameters())
    now = model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in before.items())
    assert all(now[name].dtype == value.dtype for name, value in before.items())


def test_results_are_saved_and_drawn(tmp_path: Path) -> None:
    found = datbench.flops("dat_t", res=64)
    found.save(tmp_path / "counted.json")
    (row,) = json.loads((tmp_path / "counted.json").read_text())["rows"]
    assert row["macs"] == found.macs
    assert "stages.2" in str(found.plot())
    assert "dat_t" in str(datbench.memory(["dat_t", "datpp_t"], res=64).plot())
    pytest.importorskip("vl_convert", reason="needs datbench[plots]")
    found.plot().save(tmp_path / "counted.svg")
    assert (tmp_path / "counted.svg").read_text().startswith("<svg")
    assert found.plot()._repr_svg_() == (tmp_path / "counted.svg").read_text()
