"""What `datbench compare` takes as a side: ``MODEL[@option=value,...]``, or a result file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

from ..errors import UnknownNameError, UsageError
from ..timings import TIME_MODES, How
from ..types import ATTENTIONS, DTYPES, MAX_BATCH, Resolution, Setting
from ..versus import Side

Name = TypeVar("Name", bound=str)

MOST_THREADS = 4096

FLAGS = ("compile", "channels_last")

_OPTION = re.compile(r"[A-Za-z_-]+(=.*)?")

_TRUTH = {"": True, "yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@dataclass(frozen=True)
class Options:
    """Of one side, as they are written; None where they were not given."""

    batch: str | None = None
    res: str | None = None
    dtype: str | None = None
    device: str | None = None
    attention: str | None = None
    mode: str | None = None
    threads: str | None = None
    compile: str | None = None
    channels_last: str | None = None
    python: str | None = None
    source: str | None = None

    def given(self) -> dict[str, str]:
        """The options that were given."""
        found = {name: getattr(self, name) for name in NAMES}
        return {name: value for name, value in found.items() if value is not None}


NAMES = tuple(each.name for each in fields(Options))


def is_file(text: str) -> bool:
    """Whether a side is a result file."""
    return text.lower().endswith(".json") or ("@" not in text and Path(text).is_file())


def split(text: str) -> tuple[str, Options]:
    """The model, and the options behind the last ``@`` that has any.

    Raises:
        UsageError: an option is unknown, without a value or given twice, or none is there.
    """
    if text.endswith("@") and not Path(text.partition(":")[2]).is_file():
        raise UsageError(f"{text!r} has nothing behind its @; write MODEL@option=value.")
    for at in (match.start() for match in reversed(list(re.finditer("@", text)))):
        found = _pairs(text[at + 1 :])
        if found is None:
            continue
        unknown = [name for name, _ in found if name not in NAMES]
        if unknown:
            if ":" in text and Path(text.partition(":")[2]).exists():
                continue  # a part of a path
            raise UnknownNameError.among("option", unknown[0], NAMES, f"It stands in {text!r}.")
        names = [name for name, _ in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise UsageError(f"{text!r} gives {twice} twice.")
        return text[:at], Options(**dict(found))
    return text, Options()


def _pairs(tail: str) -> list[tuple[str, str]] | None:
    """Options as written; None if this is something else."""
    parts = [part.strip() for part in tail.split(",")]
    if len(parts) > 1 and not all(parts):
        rest = ",".join(filter(None, parts))
        if rest and _pairs(rest) is None:
            return None
        raise UsageError(f"'@{tail}' leaves an option out between its commas.")
    flags = [part.replace("-", "_") in FLAGS for part in parts]
    if not all(map(_OPTION.fullmatch, parts)):
        return None
    if not all(flag or "=" in part for flag, part in zip(flags, parts, strict=True)):
        return None
    split = [part.partition("=") for part in parts]
    return [(name.replace("-", "_"), value.strip()) for name, _, value in split]


def side(text: str, common: Options, how: How) -> Side:
    """A side that can be run; its own options count before the common ones.

    Raises:
        UsageError: an option's value is wrong, or the model does not exist.
    """
    model, own = split(text)
    if not model:
        raise UsageError(f"{text!r} names no model; write MODEL@option=value.")
    told: dict[str, str] = {**common.given(), **own.given()}
    mode = _named("mode", told.get("mode", "infer"), TIME_MODES)
    settled = replace(
        how,
        mode=mode,
        threads=_whole("threads", told["threads"], MOST_THREADS) if "threads" in told else None,
        compile=_flag("compile", told),
        channels_last=_flag("channels_last", told),
    )
    python, source = _python(told.get("python")), _source(told.get("source"))
    setting = Setting(
        _resolution(model, told.get("res"), python is not None or source is not None),
        _whole("batch", told.get("batch", "1"), MAX_BATCH),
        _named("dtype", told.get("dtype", "float32"), DTYPES),
        told.get("device") or _default_device(),
        _named("attention", told.get("attention", "eager"), ATTENTIONS),
    )
    return Side(model, setting, settled, python, source)


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _resolution(model: str, text: str | None, elsewhere: bool) -> Resolution:
    """The size asked for, or the model's own; a model of another version need not exist here."""
    from ..models.resolve import resolve

    if text is not None and elsewhere:
        return Resolution.parse(text)
    try:
        spec = resolve(model)
    except UnknownNameError as error:
        if elsewhere:
            raise UsageError(f"{model} is not known here; give its --res.") from error
        raise
    return spec.resolution if text is None else Resolution.parse(text)


def _named(what: str, name: str, known: tuple[Name, ...]) -> Name:
    for one in known:
        if one == name:
            return one
    raise UnknownNameError.among(what, name, known)


def _whole(what: str, text: str, most: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise UsageError(f"{what} {text!r}: write a number from 1 to {most}.")
    return int(text)


def _flag(name: str, told: Mapping[str, str]) -> bool:
    text = told.get(name, "no").lower()
    if text not in _TRUTH:
        raise UsageError(f"{name} {text!r}: write yes or no.")
    return _TRUTH[text]


def _python(text: str | None) -> str | None:
    if text is None:
        return None
    found = shutil.which(str(Path(text).expanduser()))
    if found is None:
        raise UsageError(f"python {text!r}: there is no such program; name a Python interpreter.")
    return str(Path(found).absolute())


def _source(text: str | None) -> str | None:
    if text is None:
        return None
    folder = Path(text).expanduser().absolute()
    if not (folder / "datbench" / "__init__.py").is_file():
        raise UsageError(f"source {text!r}: there is no datbench/__init__.py in it.")
    return str(folder)
