"""Charts as values: what a schema and arithmetic can check without a browser."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from datbench.cli.main import main
from datbench.render.figure import WHOLE, partition

from .rows import throughput, written


def charts(everything: Path) -> dict[str, dict[str, Any]]:
    text = (everything / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', text, re.S)
    return dict(json.loads(found[1]))


def test_every_chart_is_vega_lite(everything: Path) -> None:
    altair = pytest.importorskip("altair", reason="needs datbench[test]")
    found = charts(everything)
    assert len(found) == 13
    for spec in found.values():
        del spec["data"]["values"][5:]  # rows are alike, and each takes its time
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # altair's own
            altair.Chart.from_dict(spec)
    with pytest.raises(Exception, match="sizes"):
        altair.Chart.from_dict({**spec, "sizes": 3})


def test_every_chart_is_a_file(everything: Path) -> None:
    names = {path.stem for path in (everything / "plots").iterdir()}
    assert names == set(charts(everything))
    text = (everything / "report.md").read_text(encoding="utf-8")
    for name in names:
        assert f"](plots/{name}.svg)" in text
        assert (everything / "plots" / f"{name}.svg").read_text().startswith("<svg")


def test_png(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="needs datbench[report]")
    times = written(tmp_path / "times.json", "throughput", [throughput("dat_t", 1000.0)])
    arguments = ["report", "none", "--from", times, "--tables", "none", "--plots", "png"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    data = (tmp_path / "out" / "plots" / "throughput-1.png").read_bytes()
    assert data.startswith(b"\x89PNG")


def test_partition() -> None:
    amounts = {"stem": 10.0, "stages.0": 20.0, "stages.0.blocks.1.ffn": 70.0, "head": 0.0}
    rects = {rect.path: rect for rect in partition(amounts)}
    assert rects[WHOLE].amount == 100
    stage = rects["stages.0"]
    assert (stage.level, stage.start, stage.end, stage.amount) == (1, 0.1, 1.0, 90)
    block = rects["stages.0.blocks.1"]
    assert (block.level, block.name, block.branch) == (2, "blocks.1", "stages.0")
    assert block.end - block.start == pytest.approx(0.7)
    assert "head" not in rects  # nothing of it could be seen
    assert partition({"a": 0.0}) == []


def test_small_modules_stand_together() -> None:
    rects = partition({"large": 10_000.0, **{f"small{n}": 5.0 for n in range(10)}})
    assert [rect.name for rect in rects] == [WHOLE, "large", "10 small modules"]
    assert sum(rect.amount for rect in rects if rect.level == 1) == rects[0].amount


def test_one_small_file_whose_text_closes_no_element(everything: Path) -> None:
    """Neither Vega's script nor a name ends the script element that it stands in."""
    assert (everything / "report.html").stat().st_size < 5_000_000
    text = (everything / "report.html").read_text(encoding="utf-8")
    scripts = re.findall(r"<script type=[^>]*>", text)
    assert len(scripts) == text.lower().count("</script>") == 4
