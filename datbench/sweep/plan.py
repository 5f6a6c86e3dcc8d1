"""From ``sweep.toml`` to units: read, checked, every combination of a grid, in their order."""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from functools import cache
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..errors import DatbenchError, UsageError
from ..files import read_text
from ..inputs import checked as checked_inputs
from ..machine import has_gpu
from ..memory.records import capacity
from ..models.resolve import check_size, resolve
from ..records import checked, plain, unknown_keys
from ..setting import (
    ATTENTIONS,
    MEMORY_MODES,
    TIME_MODES,
    WITH_BACKWARD,
    How,
    Recipe,
    Resolution,
    Setting,
    describe,
    mode_of,
    one_of,
    precision_of,
)
from .records import KINDS, Grid, Plan, SweepUnit, Unit, UnitKind

if TYPE_CHECKING:
    from ..models.resolve import NamedSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PLAN = "sweep.toml"

LONGEST = 86_400.0
"""Seconds that a unit may take at most."""

TIMEOUT, COMPILED = 300.0, 1800.0
"""Seconds that a unit may take by default; one that is compiled first."""

_RUN = ("model", "res", "batch", "dtype", "attention", "features")

_TIME = ("device", "threads", "budget")

AXES: dict[UnitKind, tuple[str, ...]] = {
    "flops": (*_RUN, "mode"),
    "memory": (*_RUN, "mode", "optimizer", "checkpointing"),
    "memory-largest": (
        *(name for name in _RUN if name != "batch"),
        *("mode", "optimizer", "checkpointing", "memory", "device"),
    ),
    "peaks": ("dtype", *_TIME),
    "throughput": (
        *_RUN,
        *_TIME,
        *("mode", "compile", "channels_last", "flush_l2", "width"),
    ),
    "memory-measured": (*_RUN, "mode", "optimizer", "checkpointing", "device"),
}
"""The fields of a grid that a unit of each kind has."""

_ALWAYS = ("kind", "input", "timeout")


def read_plan(path: Path) -> Plan:
    """What a ``sweep.toml`` says.

    Raises:
        UsageError: it cannot be read, or anything in it is not understood; with the line.
    """
    return parse_plan(read_text(path), str(path))


def parse_plan(text: str, name: str) -> Plan:
    """The same of its text; `name`: of the file, empty where options say it."""
    try:
        content = tomllib.loads(text)
    except ValueError as error:  # it says the line
        raise UsageError(f"{name}: {error}.") from error
    where = _Places(text, name)
    unknown = unknown_keys(content, [each.name for each in fields(Plan)])
    if unknown:
        key = next(key for key in content if key not in Plan.__dataclass_fields__)
        raise UsageError(f"{where.of(key)}: {unknown[0]}")
    if not content.get("grid"):
        raise UsageError(f"{name} has no grid; add a table [[grid]] with kind and model.")
    known = [each.name for each in fields(Grid)]
    for number, grid in enumerate(content["grid"] if isinstance(content["grid"], list) else []):
        for key in grid if isinstance(grid, Mapping) else ():
            if said := unknown_keys([key], known):
                raise UsageError(f"{where.of(key, number)}: {said[0]}")
    plan, problems = checked(Plan, content)
    for problem in problems:
        found = re.match(r"grid\[(\d+)\](?:\.(\w+))?", problem.where)
        key = (found[2] or "") if found else problem.where
        place = where.of(re.split(r"[.[]", key)[0], int(found[1]) - 1 if found else None)
        raise UsageError(f"{place}: {problem.problem}.")
    assert isinstance(plan, Plan)
    if plan.timeout is not None and not 0 < plan.timeout <= LONGEST:
        raise UsageError(f"{where.of('timeout')}: must be above 0 and at most {LONGEST:g}.")
    return plan


class _At(UsageError):
    """What is wrong with a field of a grid."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


class _Places:
    """Where the keys of a TOML text stand; its reader does not say it."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._lines: dict[tuple[int | None, str], int] = {}
        grid = -1
        table: str | None = None
        for line, content in enumerate(text.splitlines(), 1):
            if header := re.match(r"\s*\[+\s*([\w-]+)", content):
                table = header[1]
                grid += table == "grid"
                self._lines.setdefault((grid if table == "grid" else None, ""), line)
                self._lines.setdefault((None, table), line)
            elif key := re.match(r"\s*[\"']?([\w-]+)[\"']?\s*=", content):
                self._lines.setdefault((grid if table == "grid" else None, key[1]), line)

    def of(self, key: str, grid: int | None = None) -> str:
        """``sweep.toml, line 12: batch``, as well as it is known; of options the name alone."""
        if not self._name:
            return key or "the options"
        line = self._lines.get((grid, key)) or self._lines.get((grid, ""))
        place = self._name if line is None else f"{self._name}, line {line}"
        return f"{place}: {key}" if key else place


def text_of(plan: Plan) -> str:
    """A plan as TOML, without what is as by default."""
    lines = []
    for name in ("processes", "seed", "timeout"):
        if getattr(plan, name) != Plan.__dataclass_fields__[name].default:
            lines.append(f"{name} = {_toml(getattr(plan, name))}")
    for grid in plan.grid:
        lines += ["", "[[grid]]"]
        for each in fields(Grid):
            if (value := getattr(grid, each.name)) != each.default:
                lines.append(f"{each.name} = {_toml(value)}")
    if plan.slurm:
        lines += ["", "[slurm]", *(f"{k} = {_toml(v)}" for k, v in plan.slurm.items())]
    return "\n".join(lines).lstrip() + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)  # numbers, text and truth are written alike


# From grids to units.


def units_of(text: str, name: str = PLAN) -> list[tuple[Unit, float]]:
    """Every unit of a plan once, with its time-out in seconds, in the order of the work.

    What is computed comes first, then machine peaks, then round after round of what is measured,
    each round in an order of its own: what slowly changes on a machine meets no model alone.

    Raises:
        UsageError: anything in it is not understood, or a unit stands in it twice; with the line.
    """
    plan, where = parse_plan(text, name), _Places(text, name)
    found: dict[Unit, tuple[int, float]] = {}
    for number, grid in enumerate(plan.grid):
        for unit in _units(grid, number, where):
            if unit in found:
                first = found[unit][0]
                which = "twice" if first == number else f"in grid {first + 1} too"
                said = words_of(specification(unit))
                raise UsageError(f"{where.of('', number)}: {said} is {which}; name it once.")
            usual = COMPILED if unit.how is not None and unit.how.compile else TIMEOUT
            found[unit] = (number, grid.timeout or plan.timeout or usual)
    order = [unit for unit in found if unit.static]
    order += [unit for unit in found if unit.kind == "peaks"]
    measured = [unit for unit in found if not unit.static and unit.kind != "peaks"]
    done = [(unit, found[unit][1]) for unit in order]
    for turn in range(plan.processes if measured else 0):
        random.Random(f"{plan.seed}:{turn}").shuffle(measured)
        done += [(replace(unit, round=turn), found[unit][1]) for unit in measured]
    return done


def _units(grid: Grid, number: int, where: _Places) -> Iterator[Unit]:
    try:
        yield from _of_grid(grid)
    except _At as error:
        raise UsageError(f"{where.of(error.key, number)}: {error}") from None


def _of_grid(grid: Grid) -> Iterator[Unit]:
    """The units of a grid, each once for every combination of its values."""
    kinds = _many(grid.kind)
    if not kinds:
        raise _At("kind", "the grid is empty: name a kind.")
    for kind in kinds:
        _read("kind", one_of, "kind", kind, KINDS)
    used = {name for kind in kinds for name in AXES[kind]}
    for each in fields(Grid):
        value = getattr(grid, each.name)
        if value == () and each.name != "input":
            raise _At(each.name, "the grid is empty: the list has no value.")
        if value != each.default and each.name not in (*used, *_ALWAYS):
            raise _At(each.name, f"has no meaning for {' and '.join(kinds)}.")
    for name, limit in (("budget", LONGEST), ("timeout", LONGEST), ("width", 100.0)):
        value = getattr(grid, name)
        if value is not None and not 0 < value <= limit:
            raise _At(name, f"must be above 0 and at most {limit:g}, not {value:g}.")
    for kind in kinds:
        axes = AXES[kind]
        values = [_many(getattr(grid, name)) or (None,) for name in axes]
        if "model" in axes and grid.model is None:
            raise _At("model", "is missing: name models.")
        for chosen in product(*values):
            yield _unit(kind, dict(zip(axes, chosen, strict=True)), _many(grid.input))


def _many(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


@cache
def _spec(name: str) -> NamedSpec:
    return resolve(name)


def _read(key: str, read: Any, *given: Any) -> Any:
    """What `read` makes of a field's value.

    Raises:
        _At: it does not understand it.
    """
    try:
        return read(*given)
    except DatbenchError as error:
        raise _At(key, str(error)) from None


def _unit(kind: UnitKind, given: Mapping[str, Any], inputs: tuple[str, ...]) -> Unit:
    """The unit with these values, one of each field that its kind has."""
    dtype, cast = _read("dtype", precision_of, given["dtype"])
    device = given.get("device") or "meta"
    if "device" in given and given["device"] is None and kind != "memory-largest":
        device = "cuda" if has_gpu() else "cpu"
    if device == "meta" and kind not in ("flops", "memory", "memory-largest"):
        raise _At("device", "nothing is measured on meta; write cpu or cuda.")
    if kind == "peaks":
        setting = Setting(Resolution(1), 1, dtype, device)
        how = How(threads=given["threads"], budget=given["budget"])
        return Unit(kind, setting, None, how)
    spec = _read("model", _spec, given["model"])
    size = _read("res", Resolution, given["res"]) if given["res"] else spec.resolution
    _read("res", check_size, spec, size)
    takes = _read("input", checked_inputs, inputs, False, False)
    attention = _read("attention", one_of, "attention", given["attention"], ATTENTIONS)
    batch = given.get("batch", 1)

    def setting_of(backward: bool) -> Setting:
        wanted = size, batch, dtype, device, attention, backward, given["features"], takes
        found: Setting = _read("batch", Setting, *wanted)
        return found

    if kind == "throughput":
        how = How(
            _read("mode", mode_of, given["mode"], TIME_MODES, "inference"),
            given["threads"],
            given["compile"],
            given["channels_last"],
            given["flush_l2"],
            given["budget"],
            given["width"] / 100,
            cast,
        )
        return Unit(kind, setting_of(False), spec.name, how)
    if kind == "flops":
        if cast is not None:
            raise _At("dtype", f"{given['dtype']} is for memory and throughput.")
        mode = _read("mode", mode_of, given["mode"], ("inference", "backward"), "inference")
        return Unit(kind, setting_of(mode == "backward"), spec.name)
    mode = _read("mode", mode_of, given["mode"], MEMORY_MODES, "forward")
    recipe = Recipe(given["optimizer"], cast, given["checkpointing"])
    recipe = _read("optimizer" if recipe.optimizer else "mode", recipe.of, mode)
    setting = setting_of(kind != "memory-measured" and mode in WITH_BACKWARD)
    memory = given.get("memory")
    if kind == "memory-largest":
        if memory is None:
            raise _At("memory", "say what the largest batch has to fit into, such as 16GiB.")
        _read("memory", capacity, memory)
        if device not in ("meta", "cuda"):
            raise _At("device", f"the largest batch is confirmed on cuda, not on {device}.")
    return Unit(kind, setting, spec.name, None, mode, recipe, memory)


# A unit in words, and its key.


def specification(unit: Unit) -> dict[str, Any]:
    """A unit as JSON has it, without what it does not have."""
    return {name: value for name, value in plain(unit).items() if value is not None}


def key_of(specified: Mapping[str, Any]) -> str:
    """The hash of a unit's specification alone."""
    text = json.dumps(specified, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def words_of(specified: Mapping[str, Any]) -> str:
    """A specification in words: ``throughput dat_t, 224x224, batch 8, float32, ...``."""
    said = specified["setting"]
    if specified["kind"] == "peaks":
        return f"peaks, {said['dtype']}, on {said['device']}"
    how = {k: v for k, v in (specified.get("how") or {}).items() if k not in ("budget", "width")}
    about = {"how": how, "recipe": specified.get("recipe"), "mode": specified.get("mode")}
    setting = {**said, "resolution": f"{said['width']}x{said['height']}"}
    row = SimpleNamespace(
        model=specified["model"], setting=setting, **{k: v for k, v in about.items() if v}
    )
    parts = [f"{specified['kind']} {specified['model']}", describe(row)]
    if specified.get("memory"):
        parts.append(f"in {specified['memory']}")
    if specified.get("round"):
        parts.append(f"round {specified['round'] + 1}")
    return ", ".join(filter(None, parts))


def listed(specified: Mapping[str, Any], timeout: float, key: str) -> SweepUnit:
    """A specification as JSON has it in words."""
    setting, how = specified["setting"], specified.get("how") or {}
    cast = how.get("autocast") or (specified.get("recipe") or {}).get("autocast")
    return SweepUnit(
        specified["kind"],
        specified.get("model"),
        f"{setting['width']}x{setting['height']}",
        setting["batch"],
        f"amp-{cast}" if cast else setting["dtype"],
        setting["attention"],
        setting["device"],
        specified.get("mode") or how.get("mode"),
        specified.get("round", 0) + 1,
        timeout,
        key,
    )


def pruning_key(specified: Mapping[str, Any]) -> str:
    """What units have in common that differ in their batch and round alone."""
    setting = {k: v for k, v in specified["setting"].items() if k != "batch"}
    return key_of({**specified, "setting": setting, "round": 0})
