"""Configurations of mmcv (mmdetection, mmsegmentation): Python files, read and never run. Free of
torch.

A file assigns dicts to names, over what the files in its ``_base_`` assign.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError, first_line
from ..files import read_text

MODEL = {"model", "backbone"}
"""The names that are looked for; the published files assign the first."""


def read_mmcv(path: Path, most: int) -> dict[str, Any]:
    """What a file, and those of its bases that are there, assign to the names in `MODEL`.

    What is not a literal stands as its source text.

    Args:
        most: bytes of a file, and elements of a list that is repeated.

    Raises:
        UsageError: the file cannot be read, or changes the model by code.
    """
    merged: dict[str, Any] = {}
    try:
        names = _assigned(path, ast.parse(read_text(path, most)).body, most)
        bases = names.get("_base_", [])
        for base in bases if isinstance(bases, list) else [bases]:
            file = (path.parent / str(base)).resolve()
            if file.suffix == ".py" and file.is_file():
                merged = _merged(merged, read_mmcv(file, most))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"{path} cannot be read as Python: {first_line(error)}.") from error
    return _merged(merged, {name: names[name] for name in MODEL & names.keys()})


def _assigned(path: Path, body: list[ast.stmt], most: int) -> dict[str, Any]:
    """What a module assigns to names. Those that any other statement names are not known."""
    names: dict[str, Any] = {}
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names[name] = _value(value, names, most)
            case _:
                touched = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
                if touched & MODEL:
                    raise UsageError(
                        f"{path}: line {statement.lineno} makes or changes the model by code, "
                        "which is not run: write the keys of its backbone into a YAML file, below "
                        "`backbone:`."
                    )
                names = {name: names[name] for name in names.keys() - touched}
    return names


def _value(node: ast.expr, names: Mapping[str, Any], most: int) -> Any:
    """What an expression of literals, `dict(...)` and earlier names stands for."""
    match node:
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=words) if all(
            word.arg for word in words
        ):
            return {word.arg: _value(word.value, names, most) for word in words}
        case ast.Dict() if all(isinstance(key, ast.Constant) for key in node.keys):
            keys = [ast.literal_eval(key) for key in node.keys if key]
            return {k: _value(v, names, most) for k, v in zip(keys, node.values, strict=True)}
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_value(element, names, most) for element in elements]
        case ast.BinOp(left=left, op=ast.Mult(), right=ast.Constant(value=int() as times)):
            repeated = _value(left, names, most)
            if isinstance(repeated, list) and len(repeated) * times <= most:
                return repeated * times
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return ast.unparse(node)


def _merged(base: Any, over: Any) -> Any:
    """Dicts key by key, unless one has mmcv's ``_delete_``."""
    if not isinstance(over, dict):
        return over
    kept = base if isinstance(base, dict) and not over.get("_delete_") else {}
    own = {key: _merged(kept.get(key), value) for key, value in over.items() if key != "_delete_"}
    return kept | own
