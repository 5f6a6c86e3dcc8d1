"""Result files come back as the values that they were written from, or say what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from datbench import records
from datbench.compare.records import as_document_row
from datbench.counting.records import CountRow
from datbench.errors import UsageError
from datbench.records import LAYOUTS, document, dumps, read, row_problems, values

from .row_samples import sample

CLASSES = [(kind, name) for kind, layout in LAYOUTS.items() for name in layout.rows]


def _written(kind: str, *rows: Any) -> dict[str, Any]:
    if kind.startswith("compare"):  # these have settings inside
        rows = tuple(as_document_row(row) for row in rows)
    loaded: dict[str, Any] = json.loads(dumps(document(kind, rows, {"torch": "2"})))
    return loaded


@pytest.mark.parametrize(("kind", "name"), CLASSES, ids=[name for _, name in CLASSES])
def test_every_row_comes_back(kind: str, name: str) -> None:
    row = sample(records._class(name))
    content = _written(kind, row)
    assert row_problems(kind, content["rows"][0]) == []
    (back,) = values(content, "file")
    assert back == row
    assert _written(kind, back) == content


@pytest.mark.parametrize(("kind", "name"), CLASSES, ids=[name for _, name in CLASSES])
def test_every_field_of_every_row_is_checked(kind: str, name: str) -> None:
    (row,) = _written(kind, sample(records._class(name)))["rows"]
    for field in row:
        broken = row | {field: {"no": object()} if not isinstance(row[field], dict) else 7}
        known = field not in LAYOUTS[kind].extras
        if known and (not isinstance(row[field], dict) or field in ("setting", "recipe", "how")):
            found = row_problems(kind, broken)
            assert any(problem.field.startswith(field) for problem in found), (field, found)


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
        (("stages", 0, "calls"), [], "stages[1].calls: must be a whole number, not []"),
        (("stages",), {}, "stages: must be a list, not {}"),
        (("counted", "a"), "x", "counted.a: must be a whole number, not 'x'"),
        (("setting", "batch"), 0, "setting: batch 0: write a number from 1 to 1048576"),
        (("setting", "width"), 3, "setting: resolution 3x96: each side must lie"),
        (("setting", "attention"), "flash", "setting.attention: must be one of eager, sdpa"),
        (("news",), 1, "news: is no field of this kind"),
        (("params",), -1, "params: must not be negative, as -1 is"),
        (("params",), 10**400, "params: must be a number below 1e+30, not one of so many digits"),
        (("stages", 0, "share"), 10**400, "stages[1].share: must be a number below 1e+30"),
    ],
)
def test_what_is_wrong_is_named(row: dict[str, Any], path: Any, value: Any, said: str) -> None:
    inner: Any = row
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    (problem,) = row_problems("flops", row)
    assert str(problem).startswith(said)


def test_what_is_missing_is_named(row: dict[str, Any]) -> None:
    del row["macs"], row["setting"]["height"]
    assert [str(problem) for problem in row_problems("flops", row)] == [
        "setting.height: is missing",
        "macs: is missing",
    ]
    with pytest.raises(UsageError, match=r"f.json, row 1: setting.height: is missing\."):
        values({"kind": "flops", "rows": [row]}, "f.json")


def test_an_older_version_is_brought_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There is none yet: a layout of the future shows that the way is there."""
    old = tmp_path / "old.json"
    old.write_text(dumps(document("flops", [sample(CountRow)], {})))

    def renamed(content: dict[str, Any]) -> dict[str, Any]:
        return {**content, "version": 2, "kind": f"{content['kind']}"}

    monkeypatch.setattr(records, "VERSION", 2)
    with pytest.raises(UsageError, match="has version 1, which no datbench has written"):
        read(old)
    monkeypatch.setitem(records.MIGRATIONS, 1, renamed)
    assert read(old)["version"] == 2
    assert values(read(old), "old")[0] == sample(CountRow)


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_that_never_was(version: Any, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(document("env", [], {}) | {"version": version}))
    with pytest.raises(UsageError, match="which no datbench has written"):
        read(path)


@pytest.mark.parametrize(
    ("version", "said"), [(True, "True"), (None, "null"), ("1", "'1'"), (1.0, "1.0")]
)
def test_a_version_that_is_no_number(version: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(document("env", [], {}) | {"version": version}))
    with pytest.raises(UsageError, match=f"version must be a whole number, not {said};"):
        read(path)


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    text = dumps(document("env", [{"params": 1}], {}))
    path.write_text(text.replace('"params": 1', '"params": 2, "params": 1'))
    with pytest.raises(UsageError, match="the key 'params' stands twice in one object"):
        read(path)
