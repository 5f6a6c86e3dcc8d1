"""The icicle's labels can be read."""

import re

import pytest

from datbench.render.figure import partition
from datbench.render.vega import COLOURS, ink, to_bytes


@pytest.mark.parametrize("alpha", [1.0, 0.82, 0.55])
@pytest.mark.parametrize("colour", [*COLOURS, "#666666"])
def test_labels_have_contrast(colour: str, alpha: float) -> None:
    """4.5 to 1, as WCAG 2 asks of text."""

    def luminance(parts: list[float]) -> float:
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ground = [alpha * b / 255 + 1 - alpha for b in bytes.fromhex(colour[1:])]
    behind, label = luminance(ground), {"white": 1.0, "black": 0.0}[ink(colour, alpha)]
    assert (max(behind, label) + 0.05) / (min(behind, label) + 0.05) >= 4.5


def test_ink_by_hand() -> None:
    assert [ink("#000000"), ink("#FFFFFF"), ink("#000000", 0.1)] == ["white", "black", "black"]


def test_the_picture_uses_it() -> None:
    pytest.importorskip("matplotlib", reason="needs datbench[plots]")
    rects = partition({"one": 50.0, "two": 50.0})  # below the model in dark grey; two is orange
    svg = to_bytes(rects, "a title", str, ".svg").decode()
    styles = {
        name: style
        for style, name in re.findall(r'<text style="([^"]*)"[^>]*>(\(model\)|two)  ', svg)
    }
    assert "fill: #ffffff" in styles["(model)"]
    assert "fill" not in styles["two"]  # black
