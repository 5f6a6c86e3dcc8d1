"""A report's directory: written beside and moved, so that no file in it is half."""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import DatbenchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..report.document import Content
    from ..reports import Source

Files = dict[str, bytes]
"""By their path in the directory."""


def check_directory(out: Path) -> None:
    """Refuse what no directory can be made of, before any work.

    Raises:
        UsageError: it is a file, or may not be written to.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a directory.")
    above = out if out.is_dir() else Path(os.path.realpath(out)).parent
    if not above.is_dir():
        raise UsageError(f"--out {out}: there is no directory {above}.")
    if not os.access(above, os.W_OK):
        raise UsageError(f"--out {out}: no permission to write in {above}.")


class Drawing:
    """Vega's work in a thread of its own: making the page's script takes seconds of another core.

    Args:
        wanted: without, nothing is drawn and vl-convert is not needed.
    """

    def __init__(self, wanted: bool, suffix: str) -> None:
        self.wanted = wanted
        self.suffix = suffix
        self._pool = ThreadPoolExecutor(1)
        self._script: Future[str] | None = None
        self._drawn: dict[str, bytes] = {}

    def __enter__(self) -> Drawing:
        if self.wanted:
            from ..report.vega import script

            self._script = self._pool.submit(script)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def page(self, content: Content) -> str:
        """The HTML page."""
        from ..report.html import page

        assert self._script is not None
        return page(content, self._script.result())

    def prepare(self, sources: Sequence[Source]) -> None:
        """Draw what there is already; a chart that changes with further rows is drawn again."""
        if self.wanted and sources:
            from ..report.content import content

            self.images(content(sources, ""))

    def images(self, content: Content) -> Files:
        """Every chart as a file."""
        from ..report.vega import to_image

        files = {}
        for chart in content.charts() if self.wanted else ():
            drawn = repr((chart.title, chart.choices, chart.spec))
            if drawn not in self._drawn:
                self._drawn[drawn] = to_image(chart, self.suffix)
            files[f"plots/{chart.key}{self.suffix}"] = self._drawn[drawn]
        return files


def write(out: Path, content: Content, sources: Sequence[Source], drawing: Drawing) -> None:
    """Make every file, then put them where they belong.

    Raises:
        DatbenchError: the system refused, for example because the disk is full.
    """
    files = _files(content, sources, drawing)
    try:
        _put(Path(os.path.realpath(out)), files)
    except OSError as error:
        raise DatbenchError(f"could not write {out}: {error.strerror}.") from error


def _files(content: Content, sources: Sequence[Source], drawing: Drawing) -> Files:
    from ..measure.environment import summary
    from ..report.documents import csv_files, latex_files, markdown
    from ..results import document, dumps

    files = drawing.images(content)
    images = {Path(name).stem: name for name in files}
    parts = [source.part for source in sources]
    texts = {
        "report.md": markdown(content, images),
        "report.json": dumps(document("report", parts, summary())),
        **{f"csv/{name}": text for name, text in csv_files(content).items()},
        **{f"latex/{name}": text for name, text in latex_files(content).items()},
    }
    if drawing.wanted:
        texts["report.html"] = drawing.page(content)
    # Names of models and files need not be UTF-8.
    return files | {n: text.encode("utf-8", "backslashreplace") for n, text in texts.items()}


def _put(out: Path, files: Files) -> None:
    """A directory that is there keeps what is not the report's."""
    beside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        for name, data in files.items():
            path = beside / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        beside.chmod(0o777 & ~_umask())
        if not out.exists():
            beside.rename(out)
            return
        for name in files:
            (out / name).parent.mkdir(exist_ok=True)
            (beside / name).replace(out / name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def summarise(path: str | None, text: str) -> None:
    """Append to the job summary of GitHub Actions, where there is one.

    Raises:
        DatbenchError: the system refused.
    """
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text + "\n")
    except OSError as error:
        raise DatbenchError(f"could not write the job summary {path}: {error.strerror}.") from error
