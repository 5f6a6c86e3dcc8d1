"""One report with everything in it, and a browser to read it in."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datbench.cli.main import main
from tests.skips import lacks

from .rows import ELSEWHERE, HOSTILE, benchmarks, profile, throughput, written

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, a table, and every kind of result that has a chart, of two machines."""
    pytest.importorskip("vl_convert", reason="needs datbench[report]")
    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    folder = tmp_path_factory.mktemp("report")
    rows = [throughput("dat_t", 1000.0), throughput("dat_s", 600.0), throughput(HOSTILE, 10.0)]
    files = [
        written(folder / "times.json", "throughput", rows),
        written(folder / "other.json", "throughput", [throughput("dat_t", 2000.0)], ELSEWHERE),
        written(folder / "profile.json", "profile", [profile("dat_t")]),
        benchmarks(folder / "benchmarks.json"),
    ]
    out = folder / "out"
    given = [argument for file in files for argument in ("--from", file)]
    models = ["dat_t", "datpp_t"]
    patch = pytest.MonkeyPatch()
    patch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    with patch.context():
        assert main(["report", *models, "--tables", "2", *given, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Playwright's own Chromium, or the system's."""
    api = pytest.importorskip("playwright.sync_api", reason="needs datbench[browser]")
    with api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = own if Path(own).exists() else next(filter(None, map(shutil.which, CHROMIUM)), None)
        if found is None:
            lacks("Chromium")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


Open = Callable[..., Any]


@pytest.fixture
def visit(chromium: Any, everything: Path) -> Iterator[Open]:
    """Open the page; at the end nothing was requested and nothing was complained of."""
    said: list[str] = []
    asked: list[str] = []
    pages = []

    def call(scheme: str = "light", width: int = 1280, draw: bool = True) -> Any:
        view = {"width": width, "height": 900}
        page = chromium.new_page(viewport=view, color_scheme=scheme, reduced_motion="reduce")
        pages.append(page)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((everything / "report.html").as_uri())
        if draw:
            for place in page.locator("[data-chart]").all():
                place.scroll_into_view_if_needed()
            page.wait_for_function(
                "document.querySelectorAll('[data-chart]:not([data-drawn])').length === 0"
            )
        return page

    yield call
    for page in pages:
        page.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == len(pages)
