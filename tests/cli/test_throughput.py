"""`datbench throughput`: rows in every format, endings, and what is refused."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datbench.process import packed, unpacked
from datbench.timing import rows
from datbench.timing.records import ProcessTiming, latency
from datbench.timing.worker import TimingJob, work

from .runner import Run

MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, most=100):
        super().__init__()
        self.conv, self.most = nn.Conv2d(3, 4, 3), most
    def forward(self, x):
        if x.shape[0] > self.most and not x.is_meta:
            raise RuntimeError("can't allocate memory")
        return self.conv(x).mean((2, 3))

def plain():
    return Net()

def small():
    return Net(2)

def never():
    return Net(0)
"""
QUICK = ("--res", "32", "--budget", "0.05", "--threads", "1", "--device", "cpu")


@pytest.fixture
def _models() -> None:
    Path("my_nets.py").write_text(MODELS)


@pytest.fixture
def _here(_models: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers work in this process: what they answer is the same, and quicker."""

    import torch

    def time_in_process(
        name: str, setting: Any, how: Any, *, protocols: tuple[str, ...], **_: Any
    ) -> ProcessTiming:
        before = signal.getsignal(signal.SIGINT)
        try:
            answer = work(TimingJob(name, setting, how, protocols=protocols))
        finally:
            signal.signal(signal.SIGINT, before)
            torch.set_num_threads(1)
        found: ProcessTiming = unpacked(ProcessTiming, json.loads(json.dumps(packed(answer))))
        return found

    monkeypatch.setattr(rows, "time_in_process", time_in_process)


@pytest.mark.usefixtures("_models")
def test_a_row_from_a_fresh_process_with_the_machine_beside_it(run: Run) -> None:
    (row,) = run("throughput", "my_nets:plain", "--batch", "4", *QUICK, "--format", "json").rows
    assert (row["outcome"], row["setting"]["batch"], row["how"]["threads"]) == ("measured", 4, 1)
    assert row["setting"]["device"] == "cpu"
    (only,) = row["processes"]
    timing = only["timing"]
    assert row["samples"] == len(timing["samples"])
    assert row["images_per_second"] == pytest.approx(4 / timing["median"])
    assert row["low"] <= row["seconds"] <= row["high"]
    assert row["mac_rate"] == pytest.approx(row["macs"] / row["seconds"])
    assert row["macs"] == 4 * 30 * 30 * 4 * 27  # the convolution; a mean weighs nothing
    assert row["mac_fraction"] == pytest.approx(row["mac_rate"] / row["ceilings"]["macs"])
    assert row["ceilings"] == only["ceilings"]
    assert row["energy"] is None
    assert row["energy_reason"]
    assert only["environment"]["torch_threads"] == only["threads"] == 1


@pytest.mark.usefixtures("_here")
def test_the_jsons_raw_samples_give_its_percentiles(run: Run) -> None:
    (row,) = run("throughput", "my_nets:plain", *QUICK, "--format", "json", "--processes", "2").rows
    timings = [unpacked(ProcessTiming, process).timing for process in row["processes"]]
    again = latency([timing for timing in timings if timing is not None])
    assert [(one.percent, one.seconds) for one in again] == [
        (one["percent"], one["seconds"]) for one in row["latency"]
    ]
    assert row["interval_of"] == "processes"


@pytest.mark.usefixtures("_here")
def test_one_row_is_a_list_of_figures_and_several_are_a_table(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is shown again reads as the command's own answer; a table fits its terminal."""
    assert run("throughput", "my_nets:plain", *QUICK, "--out", "one.json").text == ""
    one = run("results", "show", "one.json").text
    for part in ("images/s", "median", "p99", "samples", "ended by", "MAC/s", "energy an image"):
        assert part in one
    assert "use --processes" in one
    assert "1 thread" in one
    (row,) = run("results", "show", "one.json", "--format", "csv").lines
    assert float(row["images_per_second"]) == pytest.approx(1 / float(row["seconds"]))
    assert (row["model"], row["outcome"], row["threads"]) == ("my_nets:plain", "measured", "1")
    assert "| images/s" in run("throughput", "my_nets:plain", *QUICK, "--format", "md").text
    assert "tabular" in run("throughput", "my_nets:plain", *QUICK, "--format", "latex").text
    models = ("my_nets:plain", "my_nets:small")
    assert run("throughput", *models, "--batch", "1,2", *QUICK, "--out", "four.json").text == ""
    for wide in (80, 100, 120):
        monkeypatch.setenv("COLUMNS", str(wide))
        several = run("results", "show", "four.json").text
        assert max(map(len, several.splitlines())) <= wide
        lines = [line for line in several.splitlines() if line.startswith("my_nets:")]
        assert [tuple(line.split()[:2]) for line in lines] == [
            (model, batch) for model in models for batch in "12"
        ]


@pytest.mark.usefixtures("_here")
def test_a_batch_that_does_not_fit_is_halved_and_told(run: Run) -> None:
    (row,) = run("throughput", "my_nets:small", "--batch", "16", *QUICK, "--format", "json").rows
    assert (row["requested_batch"], row["setting"]["batch"]) == (16, 2)
    text = run("throughput", "my_nets:small", "--batch", "16", *QUICK).text
    assert "batch 16 ran out of memory" in " ".join(text.split())


@pytest.mark.usefixtures("_here")
def test_rows_that_failed_are_shown_and_are_an_error(run: Run) -> None:
    mixed = run("throughput", "my_nets:plain", "my_nets:gone", *QUICK)
    assert mixed.code == 5
    assert "failed" in mixed.out
    assert mixed.err.startswith("datbench: my_nets:gone: failed: ")
    never = run("throughput", "my_nets:never", *QUICK)
    assert never.code == 5
    assert "out of memory" in never.out


@pytest.mark.usefixtures("_here")
def test_ctrl_c_writes_what_is_finished(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner: Callable[..., ProcessTiming] = rows.time_in_process
    asked: list[str] = []

    def pressed(name: str, *rest: Any, **more: Any) -> ProcessTiming:
        asked.append(name)
        found = inner(name, *rest, **more)
        if len(asked) < 2:
            return found
        from dataclasses import replace

        return replace(found, outcome="interrupted", reason="by Ctrl-C")

    monkeypatch.setattr(rows, "time_in_process", pressed)
    done = run("throughput", *["my_nets:plain", "my_nets:small", "my_nets:plain"], *QUICK,
               "--out", "found.json")  # fmt: skip
    assert (done.code, done.err) == (130, "datbench: interrupted.\n")
    written = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [row["outcome"] for row in written] == ["measured", "interrupted"]
    assert written[1]["samples"] > 0


@pytest.mark.usefixtures("_here")
def test_a_protocol_stands_beside_the_figure_above_it(run: Run) -> None:
    again = ("my_nets:plain", *QUICK, "--protocol", "dat", "--processes", "3", "--out", "p.json")
    assert run("throughput", *again).text == ""
    (row,) = json.loads(Path("p.json").read_text())["rows"]
    (found,) = row["protocols"]
    assert found["processes"] == 3
    own = [process["protocols"][0]["difference"] for process in row["processes"]]
    assert found["difference"] == sorted(own)[1]
    text = run("results", "show", "p.json").text
    assert "Published protocols" in text
    above = next(line.split()[1] for line in text.splitlines() if line.startswith("images/s"))
    line = next(line for line in text.splitlines() if " dat " in line)
    assert line.split()[1:5] == ["1", "dat", "50", "30"]
    assert line.split()[6] == above
    assert " %" in line
    (row,) = run(
        "throughput", "my_nets:plain", *QUICK, "--protocol", "swin", "--format", "json"
    ).rows
    (found,) = row["protocols"]
    assert row["setting"]["batch"] == found["batch"] == 64  # its own, where none is asked for


def test_no_compiler_is_said_in_a_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no_such_compiler")
    told = run("throughput", "dat_t", "--device", "cpu", "--compile").complaint()
    assert told.startswith("torch.compile needs a C++ compiler")


def test_help_names_every_protocol(run: Run) -> None:
    from datbench.timing.protocols import PROTOCOLS

    text = "".join(run("throughput", "--help").text.split())  # a name may go on in the next line
    assert all(name in text for name in PROTOCOLS)
