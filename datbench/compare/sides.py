"""A side of a comparison as it is written: ``MODEL[@option=value,...]``."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

from ..errors import UnknownNameError, UsageError
from ..machine import device_of
from ..models.resolve import resolve
from ..setting import (
    ATTENTIONS,
    MAX_BATCH,
    TIME_MODES,
    How,
    Resolution,
    Setting,
    mode_of,
    one_of,
    precision_of,
)
from ..timing.records import ComparedSide

NAMES = "batch res dtype device attention mode threads compile channels_last python source".split()
"""Options of a side."""

FLAGS = ("compile", "channels_last")

MOST_THREADS = 4096

_OPTION = re.compile(r"[A-Za-z_-]+(=.*)?")

_TRUTH = {"": True, "yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def split(text: str) -> tuple[str, dict[str, str]]:
    """The model, and the options behind the last ``@`` that has any.

    Raises:
        UsageError: an option is unknown, without a value or given twice, or none is there.
    """
    if text.endswith("@") and not Path(text.partition(":")[2]).is_file():
        raise UsageError(f"{text!r} has nothing behind its @; write MODEL@option=value.")
    for at in (match.start() for match in reversed(list(re.finditer("@", text)))):
        found = _given_pairs(text[at + 1 :])
        if found is None:
            continue
        names = [name for name, _ in found]
        unknown = [name for name in names if name not in NAMES]
        if unknown:
            if ":" in text and Path(text.partition(":")[2]).exists():
                continue  # a part of a path
            raise UnknownNameError.among("option", unknown[0], NAMES, f"It stands in {text!r}.")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise UsageError(f"{text!r} gives {twice} twice.")
        return text[:at], dict(found)
    return text, {}


def _given_pairs(tail: str) -> list[tuple[str, str]] | None:
    """Options as written; None if this is something else."""
    parts = [part.strip() for part in tail.split(",")]
    if len(parts) > 1 and not all(parts):
        rest = ",".join(filter(None, parts))
        if rest and _given_pairs(rest) is None:
            return None
        raise UsageError(f"'@{tail}' leaves an option out between its commas.")
    found = []
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.replace("-", "_")
        if not _OPTION.fullmatch(part) or not (equals or name in FLAGS):
            return None
        found.append((name, value.strip()))
    return found


def side(text: str, common: dict[str, str], how: How, inputs: tuple[str, ...] = ()) -> ComparedSide:
    """A side that can be run; its own options count before the common ones.

    Args:
        inputs: what the model takes in place of an image (`datbench.inputs`).

    Raises:
        UsageError: an option's value is wrong, or the model does not exist.
    """
    model, own = split(text)
    if not model:
        raise UsageError(f"{text!r} names no model; write MODEL@option=value.")
    told = {**common, **own}
    threads = told.get("threads")
    how = replace(
        how,
        mode=mode_of(told.get("mode"), TIME_MODES, how.mode),
        threads=how.threads if threads is None else _whole("threads", threads, MOST_THREADS),
        compile=_flag("compile", told, how.compile),
        channels_last=_flag("channels_last", told, how.channels_last),
    )
    python = _python(told["python"]) if "python" in told else None
    source = _source(told["source"]) if "source" in told else None
    dtype, cast = precision_of(told.get("dtype", "float32"))
    setting = Setting(
        _resolution(model, told.get("res"), elsewhere=bool(python or source)),
        _whole("batch", told.get("batch", "1"), MAX_BATCH),
        dtype,
        device_of(told.get("device")),
        one_of("attention", told.get("attention", "eager"), ATTENTIONS),
        inputs=inputs,
    )
    return ComparedSide(model, setting, replace(how, autocast=cast), python, source)


def _resolution(model: str, text: str | None, elsewhere: bool) -> Resolution:
    """The size asked for, or the model's own; a model of another version need not exist here."""
    if text is not None and elsewhere:
        return Resolution.parse(text)
    try:
        spec = resolve(model)
    except UnknownNameError as error:
        if elsewhere:
            raise UsageError(f"{model} is not known here; give its --res.") from error
        raise
    return spec.resolution if text is None else Resolution.parse(text)


def _whole(what: str, text: str, most: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise UsageError(f"{what} {text!r}: write a number from 1 to {most}.")
    return int(text)


def _flag(name: str, told: dict[str, str], default: bool) -> bool:
    text = told.get(name, "yes" if default else "no").lower()
    if text not in _TRUTH:
        raise UsageError(f"{name} {text!r}: write yes or no.")
    return _TRUTH[text]


def _python(text: str) -> str:
    found = shutil.which(str(Path(text).expanduser()))
    if found is None:
        raise UsageError(f"python {text!r}: there is no such program; name a Python interpreter.")
    return str(Path(found).absolute())


def _source(text: str) -> str:
    folder = Path(text).expanduser().absolute()
    if not (folder / "datbench" / "__init__.py").is_file():
        raise UsageError(f"source {text!r}: there is no datbench/__init__.py in it.")
    return str(folder)
