"""The page in a browser: drawn, sorted, filtered, read by a keyboard and a screen reader."""

import re
from itertools import pairwise
from typing import Any

import pytest

from .conftest import Open
from .rows import HOSTILE

pytestmark = pytest.mark.browser

PLACE = "{} GPU, Example CPU, 8 cores, torch 2.6.0, cuda 12.4, datbench 0.1.0"


def test_everything_is_drawn(visit: Open) -> None:
    page = visit()
    titles = page.locator("figure > h3").all_inner_texts()
    assert titles == [
        "Where the MACs are",
        "Accuracy against multiply-adds",
        "Accuracy against parameters",
        "Accuracy against throughput, 1 of 2",
        "Accuracy against throughput, 2 of 2",
        "Multiply-adds over the input's side",
        "Terms of an attention module",
        "Memory at the peak",
        "Memory over the run",
        f"Throughput; on {PLACE.format('Example')}",
        f"Throughput; on {PLACE.format('Other')}",
        "dat_t at 224x224: operators under the roofline",
        "Where the time goes: dat_t at 224x224",
    ]
    for figure in page.locator("figure").all():
        # A chart without marks would be an empty picture.
        marks = "svg .mark-symbol path, svg .mark-rect path, svg .mark-area path"
        assert figure.locator(marks).count() > 0
        assert figure.locator("figcaption .where").inner_text().strip(".")
    # Names are text.
    assert page.locator("body script:not([type])").count() == 0
    assert HOSTILE in page.locator("#throughput-1-table").inner_text()
    assert page.locator("h1").inner_text() == "Benchmark report"


def test_charts_answer(visit: Open) -> None:
    """Hovering says by whose rule and where, a menu chooses the model, colours follow the theme."""
    page = visit()
    tooltip = page.locator("#vg-tooltip-element.visible")
    for chart, mark, words in (
        ("icicle-counts", ".mark-rect path", ["fvcore convention", "Counted on tensors"]),
        ("throughput-1", ".mark-symbol path", ["median time of a call", "Example GPU"]),
    ):
        page.locator(f"[data-chart={chart}] svg {mark}").first.hover(force=True)
        tooltip.wait_for()
        text = tooltip.inner_text().lower()
        assert [word for word in words if word.lower() not in text] == []
        page.mouse.move(0, 0)
        tooltip.wait_for(state="detached")

    place = page.locator("[data-chart=icicle-counts]")
    before = place.locator("svg").inner_html()
    place.locator("select").select_option("datpp_t, 224x224")
    page.wait_for_timeout(200)
    assert place.locator("svg").inner_html() != before

    label = "[data-chart=accuracy-macs] svg .role-axis-title text"
    light = page.locator(label).first.get_attribute("fill")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "[...document.querySelectorAll('[data-chart]')].every(p => p.dataset.drawn === 'dark')"
    )
    assert page.locator(label).first.get_attribute("fill") != light


def test_words(visit: Open) -> None:
    page = visit(draw=False)
    # No plot mixes two machines.
    captions = page.locator("figure[id^=chart-throughput] .where").all_inner_texts()
    both = [("Example GPU" in text, "Other GPU" in text) for text in captions]
    assert both == [(True, False), (False, True)]
    assert "2 environments" in page.locator("#section-summary .warning").first.inner_text()
    # Verdicts have words beside their signs.
    for verdict in page.locator("#table-2 .verdict").all():
        sign = verdict.locator(".sign").inner_text()
        assert verdict.inner_text().removeprefix(sign).strip()
    # Every region has a name of its own.
    names = page.locator("[role=region]").evaluate_all("l => l.map(e => e.ariaLabel)")
    assert len(set(names)) == len(names) > 20
    assert [name for name in names if re.fullmatch(r"[a-z-]+[0-9-]+", name)] == []
    assert "dat_t at 224x224: time by stage" in names
    heads = page.locator("h2, h3, h4").evaluate_all("l => l.map(e => e.textContent)")
    assert [head for head in set(heads) if heads.count(head) > 1] == []


def column(page: Any, table: str, number: int) -> list[str]:
    return page.locator(f"#{table} tbody tr td:nth-child({number})").all_inner_texts()


def test_sorting_by_keyboard_and_filtering(visit: Open) -> None:
    page = visit(draw=False)
    button = page.locator("#models-table th", has_text="GMACs").locator("button")
    button.focus()
    page.keyboard.press("Enter")
    ascending = column(page, "models-table", 3)
    assert ascending == ["4.2877", "4.5889"]
    assert button.locator("..").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert column(page, "models-table", 3) == ascending[::-1]
    assert button.locator("..").get_attribute("aria-sort") == "descending"
    others = page.locator("#models-table th[aria-sort=none]")
    assert others.count() == page.locator("#models-table th").count() - 1
    grids = page.locator(".grid:has(.filter)").evaluate_all("l => l.map(e => e.id)")
    page.get_by_label("Filter rows").nth(grids.index("table-2")).fill("swin 224")
    rows = page.locator("#table-2-table tbody tr:visible")
    assert rows.count() == 3
    assert page.locator("#table-2 .count").inner_text() == "3 of 18 rows"


def test_sorting_of_printed_figures(visit: Open) -> None:
    """As people order them: 17.5G after 4.6G, and what is not there last."""
    page = visit(draw=False)
    page.locator("#table-2-table th", has_text="FLOPs").first.locator("button").click()
    found = [float(text.rstrip("G")) for text in column(page, "table-2-table", 3)]
    assert len(found) == 18
    assert found == sorted(found)
    page.locator("#table-2-table th", has_text="computed (M)").locator("button").click()
    texts = [cell.strip() for cell in column(page, "table-2-table", 7)]
    there = [text for text in texts if text != "-"]
    assert texts == there + ["-"] * (len(texts) - len(there))
    assert len(there) < len(texts)


def test_a_phone_scrolls_tables_alone(visit: Open) -> None:
    page = visit(width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    wide = "[...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(wide)
    # There the first column stays.
    scroll = page.locator("#table-2 .scroll")
    cell = page.locator("#table-2-table tbody tr:first-child td:first-child")
    other = page.locator("#table-2-table tbody tr:first-child td:nth-child(4)")
    before = cell.bounding_box()["x"], other.bounding_box()["x"]
    scroll.evaluate("e => e.scrollLeft = 200")
    assert cell.bounding_box()["x"] == before[0]
    assert other.bounding_box()["x"] == before[1] - 200


def test_the_keyboard_reaches_the_report(visit: Open) -> None:
    page = visit(draw=False)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    levels = [int(h.evaluate("e => e.tagName[1]")) for h in page.locator("h1,h2,h3,h4").all()]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit: Open, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    page = visit(scheme)
    for details in page.locator("details").all():
        details.evaluate("e => e.open = true")
    # In the dark only colours differ.
    rules = {} if scheme == "light" else {"runOnly": ["color-contrast"]}
    found = axe.Axe().run(page, options=rules).response["violations"]
    assert [
        (v["id"], v["impact"], v["nodes"][0]["target"], v["nodes"][0]["failureSummary"])
        for v in found
    ] == []


def test_on_paper_every_model_is_drawn_and_every_column_is_there(visit: Open) -> None:
    """A menu chooses on the screen; nothing is chosen on paper, and nothing is scrolled."""
    page = visit(width=794)  # A4 at 96 dots an inch
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    page.wait_for_function("document.querySelectorAll('.printed svg').length >= 6")
    menus = page.locator("figure:has(.one)")
    assert menus.count() >= 3  # MACs, terms of attention, memory over the run
    for figure in menus.all():
        headings = figure.locator(".printed h4").all_inner_texts()
        assert [name.partition(",")[0] for name in headings] == ["dat_t", "datpp_t"]
        assert figure.locator(".printed svg").count() == 2
        assert not figure.locator(".chart").is_visible()
    for table in page.locator("section > .grid table").all():
        box = table.bounding_box()
        assert box["x"] + box["width"] <= 794, table.get_attribute("id")


def test_the_last_column_is_in_view(visit: Open) -> None:
    page = visit(width=1200)
    for table in page.locator("section > .grid table").all():
        last = table.locator("thead th").last.bounding_box()
        around = table.locator("xpath=..").bounding_box()
        assert last["x"] + last["width"] <= around["x"] + around["width"] + 1
