"""A decision in words."""

import pytest

from datbench.compare.decide import decide_samples
from datbench.compare.records import ComparisonRow, Decision
from datbench.compare.view import brief, sentence, tables


def test_one_process_has_no_interval() -> None:
    found = decide_samples([0.0], [0.01], 0.02, 0.98)
    said = sentence(found, interleaved=False)
    assert "the speed of B over that of A is 0.9900. At this spread" in said
    assert "between" not in said
    (table,) = tables([ComparisonRow("a", "b", found, 1.0, 0.99, (), False)])
    (row,) = table.rows
    shown = dict(zip([column.name for column in table.columns], row, strict=True))
    assert shown["ratio"] == pytest.approx(0.99, abs=1e-4)
    assert (shown["low"], shown["high"], shown["coverage"]) == (None, None, None)


def test_some_processes_have_one() -> None:
    said = sentence(decide_samples([0.0, 0.01], [0.01, 0.02], 0.02, 0.98))
    assert ", and lies between 0.9802 and 1.0000 at 66.7 %" in said


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (decide_samples([0.0] * 8, [0.2] * 8, 0.02, 0.98), "slower: B is 18.1 % slower."),
        (decide_samples([0.0] * 8, [0.0] * 8, 0.02, 0.98), "same."),
        (Decision("missing", 0.02, 0.98, reason="not in B"), "missing: not in B."),
        (
            decide_samples([0.0], [0.01], 0.02, 0.98),
            "ambiguous: 1 of the 5 processes of each side that an interval at 98 % takes. At this "
            "spread about 6 processes of each side would settle it (--processes 6).",
        ),
    ],
)
def test_the_last_line_does_not_repeat_the_note(found: Decision, said: str) -> None:
    assert brief(found) == said
    if found.ratio is not None:
        assert brief(found) not in sentence(found)
