"""What passes the reader never fails later: damaged files of every kind end in one clear line.

The files are the samples of `tests/samples/v1`, each damaged in one place; the damage is chosen
by a seed.
"""

import copy
import io
import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datbench.cli import results
from datbench.cli.output import Destination, Format, Output
from datbench.errors import DatbenchError
from datbench.files import LARGEST_FILE
from datbench.pictures import read_image

from .runner import Run

SAMPLES = sorted((Path(__file__).parents[1] / "samples/v1").glob("*.json"))

VALUES = (None, True, -1, 0, 1e308, float("inf"), float("nan"), "", "x", "\ud800", [], {}, [[]])

HUGE = "9" * 5000

FILE, OUT = Path("f.json"), Path("out.parquet")

COMMANDS: dict[str, Callable[[], None]] = {
    "show": lambda: results.show(FILE, Output()),
    "show --format csv": lambda: results.show(FILE, Output(format=Format.CSV)),
    "merge": lambda: results.merge([FILE, FILE], Destination()),
    "convert --to csv": lambda: results.convert(FILE, Destination(), "csv"),
    "convert --to latex": lambda: results.convert(FILE, Destination(), "latex"),
    "convert --to parquet": lambda: results.convert(FILE, Destination(str(OUT)), "parquet"),
    "validate": lambda: results.validate([FILE], Output()),
}
"""As `main` calls them, which gives any other error than ours exit code 5 and "unexpected"."""

DAMAGES = 28
"""Of each sample."""


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every key or index, with the container that it is in."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


def _damaged(text: str, chance: random.Random) -> str:
    """The text with one thing wrong."""
    content = json.loads(text)
    container, key = chance.choice(list(_places(content)))
    what = chance.choice(["remove", "huge", "cut", "double", "extra", *["replace"] * 5])
    if what == "cut":
        return text[: chance.randrange(len(text))]
    if what == "remove":
        del container[key]
    elif what == "extra" and isinstance(container, dict):
        container["surplus"] = 1
    elif what == "double":
        if isinstance(container, dict):
            return text.replace(f'"{key}":', f'"{key}": 1, "{key}":', 1)
        container.append(copy.deepcopy(container[key]))
    else:
        container[key] = "HUGE" if what == "huge" else chance.choice(VALUES)
    return json.dumps(content).replace('"HUGE"', HUGE)


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
def test_a_damaged_file_is_shown_or_refused_in_one_line(path: Path) -> None:
    chance, text = random.Random(path.stem), path.read_text()
    for number in range(DAMAGES):
        damaged = _damaged(text, chance)
        FILE.write_text(damaged, errors="surrogatepass")
        name, command = list(COMMANDS.items())[number % len(COMMANDS)]
        refused = _refusal(command, f"{name}: {damaged}")
        if refused is not None:
            assert refused.exit_code < 5, name
            assert str(refused).isprintable(), name
            assert str(refused).startswith(("f.json", "1 of 1 files are broken: f.json")), name


def _refusal(command: Callable[[], object], what: str) -> DatbenchError | None:
    try:
        command()
    except DatbenchError as error:
        return error
    except Exception as error:
        raise AssertionError(what) from error
    return None


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/full", "/dev/null"])
def test_a_device_is_not_read(path: str, run: Run) -> None:
    Path("d.json").symlink_to(path)
    for command in (
        "results show d.json",
        "results merge d.json",
        "compare files d.json d.json",
        "gate --baseline d.json",
        "report --plots none none --tables none --out r --from d.json",
        "table ./d.json",
        "show config:d.json",
        "plot cost --from d.json",
    ):
        said = run(*command.split()).complaint()
        assert "d.json is a device; name a file." in said, command


def test_a_file_of_any_size_is_not_read(run: Run) -> None:
    with FILE.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)  # of holes
    assert "f.json is larger than 256.0 MiB" in run("results", "show", "f.json").complaint()


def test_a_pipe_is_read(run: Run) -> None:
    os.mkfifo("pipe")
    text = (SAMPLES[0].parent / "params.json").read_text()
    writer = threading.Thread(target=Path("pipe").write_text, args=(text,))
    writer.start()
    assert "dat_t" in run("results", "show", "pipe").text
    writer.join()


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "AVIF"])
def test_a_damaged_image_is_shown_or_refused(suffix: str) -> None:
    from PIL import Image

    written, chance = io.BytesIO(), random.Random(suffix)
    try:
        Image.linear_gradient("L").resize((9, 7)).convert("RGB").save(written, suffix)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {suffix}")
    for _ in range(60):
        data = bytearray(written.getvalue())
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        FILE.write_bytes(data)
        refused = _refusal(lambda: read_image(FILE), data.hex())
        assert refused is None or refused.exit_code == 2
