"""Take the picture of README's report: the page of `datbench report`, in headless Chromium.

Needs datbench[report,browser]; run beside `docs/draw.py`:  python docs/screenshot.py [REPORT.html]
"""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from datbench.cli.main import main

IMAGE = Path(__file__).parent / "images" / "report.png"

SIZE = (1180, 1020)
"""Of the picture: the summary, the first chart, and the beginning of the first table."""


def take(page_file: Path) -> None:
    """Write the picture of a page's beginning."""
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = own if Path(own).exists() else shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        page.goto(page_file.resolve().as_uri())
        page.wait_for_selector("[data-drawn]")
        page.screenshot(path=str(IMAGE))
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        take(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            if main(["report", "--out", f"{folder}/report"]):
                sys.exit(1)
            take(Path(folder) / "report" / "report.html")
