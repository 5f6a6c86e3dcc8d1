"""Result files come back as the records that they were written from, or say what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from datbench import records
from datbench.counting.records import CountRow
from datbench.errors import UsageError
from datbench.memory.records import MemoryRow
from datbench.records import (
    RECORDS,
    VERSION,
    ResultFile,
    check_file,
    checked,
    document,
    dumps,
    load,
    parse,
    parse_json,
    record_class,
)
from datbench.timing.records import ThroughputRow

from .row_samples import sample

CLASSES = [(kind, name) for kind, names in RECORDS.items() for name in names]

SAMPLES = sorted(Path(__file__).parent.glob("samples/v1/*.json"))
"""Small files of every kind, as version 1 wrote them."""


def _written(kind: str, *rows: Any) -> dict[str, Any]:
    written: dict[str, Any] = parse_json(dumps(document(kind, rows, {"torch": "2"})), "file")
    return written


def _problems(kind: str, row: Any) -> list[records.Problem]:
    return records._record(kind, row)[1]


@pytest.mark.parametrize(("kind", "name"), CLASSES, ids=[name for _, name in CLASSES])
def test_every_row_comes_back_and_every_field_is_checked(kind: str, name: str) -> None:
    row = sample(record_class(name))
    content = _written(kind, row)
    found = parse(content, "file")
    assert found.rows == (row,)
    assert found.document() == content
    (plain,) = content["rows"]
    for field in plain if kind not in ("env", "figure") else ():
        broken = plain | {field: {"no": [[0.5]]} if not isinstance(plain[field], dict) else 7}
        problems = _problems(kind, broken)
        assert any(problem.where.startswith(field) for problem in problems), (field, problems)


def test_there_is_a_sample_of_every_kind() -> None:
    parts = {"figure", "pytest-benchmark"}
    later = {"summary", "selftest", "peaks", "sweep", "sweep-plan", "sweep-fit"}  # than version 1
    assert {path.stem for path in SAMPLES} == set(RECORDS) - parts - later


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
def test_version_1_is_read_and_written_as_this_one(path: Path, tmp_path: Path) -> None:
    old = json.loads(path.read_text())
    assert (old["version"], VERSION) == (1, 3)
    found = load(path)
    assert (found.kind, found.environment) == (old["kind"], old["environment"])
    # In a console a record is a line.
    shown = [found, *(row for row in found.rows if not isinstance(row, dict))]
    assert all(len(repr(each)) < 400 for each in shown)
    content = found.document()
    assert content["version"] == 3
    for before, now in zip(old["rows"], content["rows"], strict=True):
        assert _within(before, now)
    again = tmp_path / "again.json"
    again.write_text(dumps(content))
    assert load(again).rows == found.rows
    assert check_file(again).verdict == "whole"


MODES = {"infer": ["inference"], "train-forward": ["forward"], "train": ["backward", "step"]}


def _within(old: Any, new: Any) -> bool:
    """Whether everything that the old one says is said, and what is new says nothing."""
    if isinstance(old, str) and old in MODES:
        return bool(new in MODES[old])
    if isinstance(old, dict):
        return all(_within(value, new[name]) for name, value in old.items()) and all(
            not new[name] or name in ("context", "recipe", "unit")
            for name in new.keys() - old.keys()
        )
    if isinstance(old, list):
        return len(old) == len(new) and all(map(_within, old, new))
    return bool(old == new)


def test_what_stood_beside_the_fields_of_version_1_is_a_field() -> None:
    rows = {path.stem: load(path).rows[0] for path in SAMPLES}
    plain, expandable = rows["memory"].allocator
    assert (plain.expandable, expandable.expandable) == (False, True)
    assert rows["memory"].context.amount is None
    assert rows["memory-measured"].simulated_peak == 3
    assert rows["compare"].order is not None
    assert rows["compare"].false_alarms.verdicts["same"] == 0
    assert (rows["compare-aa"].a.model, rows["compare-aa"].plan.processes) == ("text", 3)


@pytest.fixture
def row() -> dict[str, Any]:
    whole: dict[str, Any] = _written("flops", sample(CountRow))["rows"][0]
    return whole


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("amount",), "12", "amount: must be a whole number, not '12'"),
        (("amount",), True, "amount: must be a whole number, not True"),
        (("amount",), 1.5, "amount: must be a whole number, not 1.5"),
        (("model",), None, "model: must be text, not null"),
        (("stages", 0, "share"), float("nan"), "stages[1].share: must be a finite number, not nan"),
        (("stages", 0, "calls"), [], "stages[1].calls: must be a whole number, not a list"),
        (("stages",), {}, "stages: must be a list, not an object"),
        (("counted", "a"), "x", "counted.a: must be a whole number, not 'x'"),
        (("setting", "batch"), 0, "setting: batch 0: write a number from 1 to 1048576"),
        (("setting", "width"), 0, "setting: resolution 0x96: each side must lie"),
        (("setting", "attention"), "flash", "setting.attention: must be one of eager, sdpa"),
        (("news",), 1, "news: is not a known field"),
        (("params",), -1, "params: must not be negative, as -1 is"),
        (("params",), 10**400, "params: must be a number below 1e+30, and has too many digits"),
        (("stages", 0, "share"), 10**400, "stages[1].share: must be a number below 1e+30"),
        (("model",), "\ud800", "model: must be text that UTF-8 can write"),
    ],
)
def test_what_is_wrong_is_named(row: dict[str, Any], path: Any, value: Any, said: str) -> None:
    inner: Any = row
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    (problem,) = _problems("flops", row)
    assert str(problem).startswith(said)


def test_what_is_missing_is_named(row: dict[str, Any]) -> None:
    del row["macs"], row["setting"]["height"]
    assert [str(problem) for problem in _problems("flops", row)] == [
        "setting.height: is missing",
        "macs: is missing",
    ]
    content = document("flops", [row], {})
    with pytest.raises(UsageError, match=r"f.json, row 1: setting.height: is missing\."):
        parse(content, "f.json")


def test_of_several_types_the_nearest_says_what_is_wrong() -> None:
    (row,) = load(SAMPLES[[path.stem for path in SAMPLES].index("compare")]).document()["rows"]
    row["a"]["how"]["threads"] = "x"
    assert list(map(str, _problems("compare", row))) == [
        "a.how.threads: must be a whole number, not 'x'"
    ]
    for hint, value, said in (
        (int | None, "b", "must be a whole number, not 'b'"),
        (tuple[int, int, int, int], [1, 2], "must have 4 elements, not 2"),  # said once
        (tuple[int, int, int, int], [1] * 5, "must have 4 elements, not 5"),
    ):
        assert list(map(str, checked(dict[str, hint], {"a": value}, "c")[1])) == [f"c.a: {said}"]


def test_a_part_of_a_report_is_checked_as_a_file_of_its_kind(row: dict[str, Any]) -> None:
    part = {"kind": "flops", "source": "x", "environment": {}, "rows": [row], "role": ""}
    assert _problems("report", part) == []
    row["macs"] = None
    assert list(map(str, _problems("report", part))) == [
        "rows[1].macs: must be a whole number, not null"
    ]
    assert "kind: is 'x', which" in str(_problems("report", part | {"kind": "x"})[0])


def test_an_older_version_is_brought_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of the future shows that the way is there."""
    old = document("flops", [sample(CountRow)], {})
    monkeypatch.setattr(records, "VERSION", 4)
    with pytest.raises(UsageError, match="has version 3, which no datbench has written"):
        parse(old)
    monkeypatch.setitem(records.MIGRATIONS, 3, lambda content: {**content, "version": 4})
    found: ResultFile = parse(old)
    assert found.rows == (sample(CountRow),)
    assert found.document()["version"] == 4


def test_modes_of_version_2_have_their_new_words() -> None:
    memory = document("memory", [sample(MemoryRow)], {})
    for old, new in (("train-forward", "forward"), ("train", "backward"), ("step", "step")):
        memory["rows"][0]["mode"] = old
        assert parse({**memory, "version": 2}).rows[0].mode == new
    times = document("throughput", [sample(ThroughputRow)], {})
    for old, new in (("infer", "inference"), ("train", "step")):
        times["rows"][0]["how"]["mode"] = old
        assert parse({**times, "version": 2}).rows[0].how.mode == new


@pytest.mark.parametrize("version", [0, -1, True, None, "1", 1.0])
def test_a_version_that_never_was(version: Any) -> None:
    said = "which no datbench has written"
    if type(version) is not int:
        text = "null" if version is None else repr(version)
        said = f"version must be a whole number, not {text};"
    with pytest.raises(UsageError, match=said):
        parse(document("env", [], {}) | {"version": version})


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    text = dumps(document("env", [{"params": 1}], {}))
    path.write_text(text.replace('"params": 1', '"params": 2, "params": 1'))
    with pytest.raises(UsageError, match="the key 'params' stands twice in one object"):
        load(path)


@pytest.mark.parametrize("gpus", [0.5, "x", [1], {"name": "x"}])
def test_gpus_of_an_environment_are_objects(gpus: Any) -> None:
    for content in (
        document("env", [{"gpus": gpus}], {}),
        document("env", [], {"gpus": gpus}),
        document("env", [{"measured_in": {"gpus": gpus}}], {}),
    ):
        with pytest.raises(UsageError, match=r"gpus(\[1\])?: must be (a list|an object), not"):
            parse(content)
