"""`datbench plot`: every kind, in the terminal and as files, from models and from result files."""

import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datbench.cli.main import main
from datbench.compare.records import ComparisonRow, Decision
from datbench.records import document, dumps
from datbench.setting import How, Resolution, Setting
from datbench.timing.records import ThroughputRow

from ..row_samples import sample
from .runner import Run, refused, unwrapped

pytest.importorskip("vl_convert", reason="needs datbench[plots]")

SMALL = ("--res", "64")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Result files as the commands write them."""
    folder = tmp_path_factory.mktemp("results")
    commands: dict[str, list[str]] = {
        "flops": ["flops", "dat_t", *SMALL, "--res", "96"],
        "one": ["flops", "dat_t", *SMALL],
        "memory": ["memory", "dat_t", *SMALL, "--res", "96"],
        "eq10": ["eq10", "dat_t", *SMALL],
        "profile": ["profile", "dat_t", *SMALL, "--budget", "0.3", "--threads", "1"],
    }
    for name, words in commands.items():
        assert main([*words, "--format", "json", "--out", str(folder / f"{name}.json")]) == 0
    return folder


def test_accuracy_is_that_of_the_tables(run: Run) -> None:
    text = run("plot", "accuracy").text
    assert "Top-1 on ImageNet-1K as published" in text
    for family in ("DAT", "Swin", "DeiT", "PVT"):
        assert re.search(rf"\b{family}\b", text)
    assert "parameters (M)" in run("plot", "accuracy", "--of", "params").text


def test_accuracy_points_are_printed_cells() -> None:
    from datbench.paper.accuracy import printed

    found = {(row.name, row.top1): (row.model, row.costs) for row in printed()}
    assert found["DAT-T", 82.0] == ("dat_t", {"macs": 4.6e9, "params": 29e6})
    assert found["DAT-B", 84.8] == ("dat_b_384", {"macs": 49.8e9, "params": 88e6})


def timed(name: str, model: str, rate: float, side: int = 224, **how: Any) -> str:
    """A result file of one row, with a machine of its own on demand."""
    where = {"processor": how.pop("processor", "A")}
    kept = {field: how.pop(field) for field in ("batch", "dtype", "features") if field in how}
    setting = Setting(Resolution(side, side), device="cpu", **kept)
    row = ThroughputRow(
        model, setting, How(**how), "measured", None, 1, 1, 1, (), images_per_second=rate
    )
    Path(name).write_text(dumps(document("throughput", [row], where)))
    return name


def test_accuracy_against_measured_throughput(run: Run) -> None:
    """The best row of each model that papers print, with its setting."""
    rates = (("dat_t", 40.0), ("dat_t", 50.0), ("dat_s", 20.0), ("my:net", 9.0))
    files = [timed(f"{place}.json", *rate) for place, rate in enumerate(rates)]
    text = run("plot", "accuracy", "--of", "throughput", *(f"--from={f}" for f in files)).text
    assert "images/s" in text
    assert "DAT" in text
    assert "Swin" not in text
    assert re.search(r"20 +50$", text, re.MULTILINE)  # the axis
    said = unwrapped(text)
    assert "device cpu, batch 1, dtype float32, attention eager" in said
    assert "Not drawn: 1 of 4 rows" in said


def test_accuracy_takes_inference_at_the_inputs_of_the_print(run: Run, tmp_path: Path) -> None:
    files = [
        timed("a.json", "dat_t", 40.0),
        timed("b.json", "dat_t", 900.0, 64),
        timed("c.json", "dat_s", 700.0, mode="step"),
        timed("d.json", "dat_b_384", 5.0, 384),
        timed("e.json", "dat_b", 800.0, features=True),
    ]
    text = run("plot", "accuracy", "--of", "throughput", *(f"--from={f}" for f in files)).text
    assert re.search(r"^ *5 +40$", text, re.MULTILINE)
    assert "DAT at 384x384" in text  # a point of its own
    assert "Not drawn: 3 of 5 rows" in unwrapped(text)
    assert "measured on A" in text
    words = ("plot", "accuracy", "--of", "throughput", "--from", "b.json")
    assert "no row of these files has a published accuracy" in run(*words).complaint()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"batch": 8}, "differ in batch (1, 8)"),
        ({"dtype": "bfloat16"}, "differ in dtype"),
        ({"threads": 1}, "differ in threads"),
        ({"compile": True}, "differ in options"),
        ({"processor": "B"}, "several machines"),
    ],
)
def test_accuracy_mixes_no_settings(
    run: Run, tmp_path: Path, how: dict[str, Any], said: str
) -> None:
    one, other = timed("a.json", "dat_t", 40.0), timed("b.json", "dat_s", 20.0, **how)
    words = ("plot", "accuracy", "--of", "throughput", "--from", one, "--from", other)
    assert said in run(*words).complaint()


def test_only_rows_that_are_alike_are_joined() -> None:
    from datbench.paper.accuracy import RatedModel, accuracy, printed

    lines = {(row.name, row.top1): row.line for row in printed()}
    assert {lines["DAT-T", 82.0], lines["DAT-S", 83.7], lines["DAT-B", 84.0]} == {"DAT"}
    assert lines["DAT-B", 84.8] == "DAT at 384x384"
    assert lines["DAT-T*", 82.7] == "DAT*"
    assert lines["DaViT-B", 84.6] == "DaViT"
    assert lines["DaViT-G", 90.4] == "DaViT at 512x512"
    assert lines["CoaT-Lite Small", 81.9] != lines["CoaT Small", 82.1]
    models = [
        RatedModel("X-T", 80.0, {"macs": 1e9}),
        RatedModel("X-B (more)", 85.0, {"macs": 3e9}),
        RatedModel("X-B", 82.0, {"macs": 2e9}),
    ]
    series = accuracy(models, "macs").series
    assert [(s.name, s.x) for s in series] == [("X", (1.0, 2.0)), ("X more", (3.0,))]


def test_the_reports_accuracy_mixes_no_settings() -> None:
    from datbench.paper.accuracy import RatedModel, _by_setting, _with_rates

    rows = [
        ThroughputRow("dat_t", setting, how, "measured", None, 1, 1, 1, (), images_per_second=rate)
        for setting, how, rate in (
            (Setting(Resolution(224, 224), 1), How(), 40.0),
            (Setting(Resolution(224, 224), 8), How(), 50.0),
            (Setting(Resolution(224, 224), 8, "bfloat16"), How(), 90.0),
            (Setting(Resolution(224, 224), 8), How(compile=True), 95.0),
            (Setting(Resolution(224, 224), 8), How(mode="step"), 99.0),
        )
    ]
    groups = _by_setting(rows)
    model = RatedModel("DAT-T", 82.0, {}, "dat_t", Resolution(224, 224))
    timed = [_with_rates([model], alike)[0] for alike in groups.values()]
    assert [each.costs["throughput"] for each in timed] == [50.0, 90.0, 95.0]
    assert ["bfloat16" in said for said in groups] == [False, True, False]


def test_cost_against_size(run: Run, files: Path) -> None:
    models = run("plot", "cost", "dat_t", "datpp_t", *SMALL, "--res", "96").text
    assert "Cost of one image by fvcore" in models
    assert "dat_t" in models
    assert "datpp_t" in models
    alone = run("plot", "cost", "dat_t", *SMALL, "--res", "96").text
    assert run("plot", "cost", "--from", str(files / "flops.json")).text == alone
    memory = run("plot", "cost", "dat_t", "--of", "memory", *SMALL, "--res", "96").text
    assert "Simulated peak of memory (inference, batch 1, float32)" in memory
    from_file = run("plot", "cost", "--from", str(files / "memory.json")).text
    assert "Simulated peak of memory (forward" in from_file


def test_memory_bars_and_timeline(run: Run, files: Path) -> None:
    bars = run("plot", "memory", "dat_t", *SMALL, "--res", "96").text
    assert "saved for backward" in bars
    assert re.search(r"dat_t, 64x64, batch 1, forward: \d+\.\d MiB", bars)
    assert run("plot", "memory", "--from", str(files / "memory.json")).text == bars


def test_timelines(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    text = run("plot", "timeline", "dat_t", *SMALL, "--mode", "backward", "--batch", "2").text
    assert text.startswith("dat_t at 64x64: memory over the run (backward, batch 2)")
    assert "kept" in text
    assert "aten::convolution_backward in stages." in text
    assert max(map(len, text.splitlines())) <= 90
    assert run("plot", "timeline", "dat_t", *SMALL, "--out", "run.pickle").text == ""
    snapshot = pickle.loads((tmp_path / "run.pickle").read_bytes())
    assert {"segments", "device_traces"} <= set(snapshot)
    assert len(snapshot["device_traces"][0]) > 100


def test_terms(run: Run, files: Path) -> None:
    text = run("plot", "eq10", "dat_t", *SMALL).text
    assert "left out" in text
    assert run("plot", "eq10", "--from", str(files / "eq10.json")).text == text
    curves = run("plot", "eq10").text
    assert "Cost of one module against the side of its map" in curves
    assert "stride r of the grid of keys" in curves
    assert "stage 3, 3 x DMHA, 1280x800" in curves


def test_icicle_of_macs_and_of_time(run: Run, files: Path) -> None:
    text = run("plot", "icicle", "dat_t", *SMALL).text
    assert run("plot", "icicle", "--from", str(files / "one.json")).text == text
    lines = text.splitlines()
    assert lines[0] == "dat_t at 64x64: where the MACs are (fvcore)"
    whole = next(line for line in lines if line.startswith("(model)"))
    assert "100.0 %" in whole
    stages = [line for line in lines if re.match(r"  stages\.\d", line)]
    shares = [float(re.search(r"([\d.]+) %", line)[1]) for line in stages]  # type: ignore[index]
    assert len(stages) == 4
    assert 97 < sum(shares) <= 100.1
    timed = run("plot", "icicle", "--of", "time", "--from", str(files / "profile.json")).text
    assert "where the time goes" in timed
    assert re.search(r"\(model\) +\S+ ms +100\.0 %", timed)
    macs = run("plot", "icicle", "--from", str(files / "profile.json")).text
    assert "where the MACs are" in macs


def test_roofline(run: Run, files: Path) -> None:
    text = run("plot", "roofline", "--from", str(files / "profile.json")).text
    assert "under the roofline" in text
    assert "stages under" in text
    setting = "64x64, batch 1, float32, eager attention, inference, on cpu, 1 thread"
    assert setting in unwrapped(text)
    assert "measured on" in text
    other = run("plot", "roofline", "--of", "operator", "--from", str(files / "profile.json")).text
    assert "operators under" in other


@pytest.mark.parametrize(
    "words",
    [
        ("accuracy",),
        ("cost", "--from", "flops.json"),
        ("eq10", "--from", "eq10.json"),
        ("memory", "--from", "memory.json"),
        ("timeline", "dat_t", *SMALL),
        ("roofline", "--from", "profile.json"),
        ("icicle", "--from", "profile.json", "--of", "time"),
    ],
    ids=lambda words: words[0],
)
def test_files_are_written(run: Run, files: Path, words: tuple[str, ...]) -> None:
    words = tuple(str(files / w) if w.endswith(".json") else w for w in words)
    drawn = {"a.png": b"\x89PNG", "a.svg": b"<svg"}
    if words[0] != "memory":  # a PNG is drawn from the SVG, in a second
        del drawn["a.png"]
    for name, begins in drawn.items():
        result = run("plot", *words, "--out", name)
        assert (result.code, result.out, result.err) == (0, "", "")
        data = Path(name).read_bytes()
        assert data.startswith(begins)
        assert 2000 < len(data) < 500_000


def test_an_icicle_is_the_same_every_time(run: Run, files: Path) -> None:
    for name in ("a.svg", "b.svg"):
        assert run("plot", "icicle", "--from", str(files / "one.json"), "--out", name).code == 0
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()


REFUSED = {
    "acuracy": "No such command 'acuracy'",
    "cost": "name a model",
    "cost dat_t --of time": "choose one of macs, memory",
    "eq10 dat_t --of macs": "No such option: --of",
    "cost dat_t --from flops.json": "leave out models",
    "cost --from eq10.json": "holds 'eq10'; name a file of flops or memory",
    "cost --from memory.json --of macs": "holds 'memory'; name a file of flops",
    "cost --from memory.json --mode step": "leave out models and how they run",
    "memory --from memory.json --batch 2": "leave out models and how they run",
    "eq10 --from eq10.json --stage 3": "leave out models and how they run",
    "cost --from flops.json --from memory.json": "are of several kinds",
    "cost --from none.json": "there is no file",
    "timeline --from memory.json": "No such option: --from",
    "timeline dat_t dat_s": "draws one run",
    "icicle --from flops.json": "holds several rows",
    "icicle dat_t dat_s": "draws one",
    "icicle dat_t --of time": "datbench profile",
    "icicle --from one.json --of time": "a count has no times",
    "roofline": "datbench profile",
    "accuracy --of throughput": "together",
    "accuracy --from flops.json": "together",
    "memory dat_t --mode bakward": "did you mean backward",
    "memory dat_t --out a.pdf": ".png or .svg",
    "memory dat_t --out no/a.png": "there is no directory",
}


@refused(REFUSED)
def test_what_is_refused(run: Run, files: Path, words: str, said: str) -> None:
    given = (str(files / word) if word.endswith(".json") else word for word in words.split())
    assert said in run("plot", *given).complaint()
    assert not Path("a.pdf").exists()


def test_intervals_of_comparisons(run: Run) -> None:
    rows = [
        replace(sample(ComparisonRow), a=a, b=a, decision=Decision("same", 0.02, 0.98, *ends))
        for a, ends in (("dat_t", (1.01, 0.99, 1.03)), ("dat_s", (0.9, 0.88, 0.93)))
    ]
    Path("two.json").write_text(dumps(document("compare", rows, {})))
    text = run("plot", "compare", "--from", "two.json").text
    assert re.search(r"dat_t +0\.99 \.\. 1\.03", text)
    assert re.search(r"dat_s +0\.88 \.\. 0\.93", text)
    assert "threshold, -2 %" in text
    assert run("plot", "compare", "--from", "two.json", "--out", "two.svg").text == ""
    assert "name the file of `datbench compare" in run("plot", "compare").complaint()
    nothing = [replace(rows[0], decision=Decision("failed", 0.02, 0.98))]
    Path("none.json").write_text(dumps(document("compare", nothing, {})))
    assert "nothing to draw" in run("plot", "compare", "--from", "none.json").complaint(5)
    Path("many.json").write_text(dumps(document("compare", rows * 8, {})))
    assert "14 comparisons" in run("plot", "compare", "--from", "many.json").complaint()
