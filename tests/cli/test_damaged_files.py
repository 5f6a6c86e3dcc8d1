"""What passes the reader never fails later: damaged files of every kind end in one clear line.

The files are the samples of `tests/samples/v1`, each damaged in one place; the damage is chosen
by a seed.
"""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datbench.cli import results
from datbench.cli.options import Format
from datbench.cli.results import Target
from datbench.errors import DatbenchError

SAMPLES = sorted((Path(__file__).parents[1] / "samples/v1").glob("*.json"))

VALUES = (None, True, -1, 0, 1e308, float("inf"), float("nan"), "", "x", "\ud800", [], {}, [[]])

HUGE = "9" * 5000

FILE, OUT = Path("f.json"), Path("out.parquet")

COMMANDS: dict[str, Callable[[], None]] = {
    "show": lambda: results.show(FILE),
    "show --format csv": lambda: results.show(FILE, Format.CSV),
    "merge": lambda: results.merge([FILE, FILE]),
    "convert --to csv": lambda: results.convert(FILE, Target.CSV),
    "convert --to latex": lambda: results.convert(FILE, Target.LATEX),
    "convert --to parquet": lambda: results.convert(FILE, Target.PARQUET, out=OUT),
    "validate": lambda: results.validate([FILE]),
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


def _refusal(command: Callable[[], None], what: str) -> DatbenchError | None:
    try:
        command()
    except DatbenchError as error:
        return error
    except Exception as error:
        raise AssertionError(what) from error
    return None
