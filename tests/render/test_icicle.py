"""The icicle's labels can be read, and say what they are of."""

import re

import pytest

from datbench.render.figure import Icicle
from datbench.render.vega import FULL, INK, LIGHT, PALE, to_bytes


def luminance(parts: list[float]) -> float:
    """As WCAG 2 defines it."""
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("alpha", [FULL, (FULL + PALE) / 2, PALE])
@pytest.mark.parametrize("colour", LIGHT)
def test_labels_have_contrast(colour: str, alpha: float) -> None:
    """4.5 to 1, as WCAG 2 asks of text."""
    ground = [alpha * b / 255 + 1 - alpha for b in bytes.fromhex(colour[1:])]
    ink = [b / 255 for b in bytes.fromhex(INK[1:])]
    assert (luminance(ground) + 0.05) / (luminance(ink) + 0.05) >= 4.5


def test_the_picture_says_name_amount_and_share() -> None:
    pytest.importorskip("vl_convert", reason="needs datbench[plots]")
    amounts = {"one": 59.0, "two": 40.0, "a_module_with_a_long_name": 1.0}
    icicle = Icicle.of("a title", amounts, lambda value: f"{value:g} MAC")
    assert icicle is not None
    svg = to_bytes([icicle], ".svg").decode()
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert "a title" in texts
    for label in ("(model)  100 MAC, 100.0%", "one  59 MAC, 59.0%", "two  40 MAC, 40.0%"):
        (style,) = re.findall(rf"<text([^>]*)>{re.escape(label)}<", svg)
        assert f'fill="{INK}"' in style
    assert "a_module_with_a_long_name" not in svg.replace("title", "")  # too narrow for its name
