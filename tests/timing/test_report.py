"""Rows side by side: what they differ in stands in a column, the rest in the title."""

from datbench.setting import How, Resolution, Setting
from datbench.timing.records import ProcessTiming, ThroughputRow
from datbench.timing.view import many


def row(threads: int, batch: int = 1) -> ThroughputRow:
    setting = Setting(Resolution(32, 32), batch, device="cpu")
    process = ProcessTiming("measured", threads=threads)
    return ThroughputRow(
        "dat_t", setting, How(threads=threads), "measured", None, batch, 1, 1, (process,)
    )


def test_threads_are_told_apart() -> None:
    table = many([row(1), row(8)])
    assert "thread" not in table.title
    names = [column.name for column in table.columns if not column.hidden]
    assert "threads" in names
    place = [column.name for column in table.columns].index("threads")
    assert [values[place] for values in table.rows] == [1, 8]


def test_equal_threads_stand_in_the_title() -> None:
    table = many([row(8), row(8, batch=2)])
    assert table.title.endswith("cpu, 8 threads")
    assert "threads" not in [column.name for column in table.columns if not column.hidden]
    assert "batch" in [column.name for column in table.columns if not column.hidden]
