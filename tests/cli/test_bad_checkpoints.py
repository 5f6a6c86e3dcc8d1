"""Files that are no checkpoint of the model: refused in one line, and never run."""

import argparse
import collections
import contextlib
import functools
import os
import pickle
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import datbench
from datbench.errors import CheckpointError
from datbench.models.checkpoints import match_checkpoint, weight_sets
from datbench.models.weight_files import StandIn

from .published import DAT, shapes
from .runner import Run

FILE = Path("weights.pth")
DAMAGED = "it is damaged, cut short or no checkpoint"


def show(run: Run, path: str | Path, model: str = "dat_t") -> str:
    return run("show", model, "--checkpoint", str(path)).complaint()


class Hostile:
    """Unpickled, it calls a function."""

    def __init__(self, function: Callable[..., object], *given: object) -> None:
        self.called = function, given

    def __call__(self) -> None:
        """What is called has to look like it."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.called


CODE = "__import__('os').mkdir('marker')"

TRAPS = {
    "os.mkdir": Hostile(os.mkdir, "marker"),
    "eval": Hostile(eval, CODE),
    "partial": Hostile(Hostile(functools.partial, eval, CODE)),
}


def _text(path: Path) -> None:
    path.write_text("This is no checkpoint.\n")


def _damage(path: Path, cut: int) -> None:
    torch.save({"model": shapes("dat_t")}, path)
    path.write_bytes(path.read_bytes()[:cut])


TABLE = "stages.0.attns.0.relative_position_bias_table"

CONTENTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.touch(), DAMAGED),
    "text": (_text, DAMAGED),
    "a page of HTML": (lambda path: path.write_text("<!DOCTYPE html><html>"), DAMAGED),
    "random bytes": (lambda path: path.write_bytes(random.Random(0).randbytes(5000)), DAMAGED),
    "cut in half": (lambda path: _damage(path, 40_000), DAMAGED),
    "cut to its first bytes": (lambda path: _damage(path, 10), DAMAGED),
    "a plain pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), ""),
    "no weights": (lambda path: torch.save({"epoch": 3}, path), "holds no weights"),
    "no names": (lambda path: torch.save([torch.ones(2)], path), "holds no weights"),
    "one tensor": (lambda path: torch.save(torch.ones(2), path), "holds no weights"),
    "empty state dict": (lambda path: torch.save({"model": {}}, path), "holds no weights"),
    "a module of another model": (
        lambda path: torch.save(torch.nn.Linear(2, 2), path),
        "holds no weights of such a model",
    ),
    "an empty bias table": (
        lambda path: torch.save({**shapes("dat_t"), TABLE: torch.zeros(0, 3)}, path),
        f"{TABLE} is (0, 3) in the file, (169, 3) in the model",
    ),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_that_is_no_checkpoint(run: Run, content: str) -> None:
    write, part = CONTENTS[content]
    write(FILE)
    before = FILE.read_bytes()
    message = show(run, FILE)
    assert message.startswith("weights.pth ")
    assert part in message
    assert "weights_only" not in message  # no advice to read it unsafely
    assert FILE.read_bytes() == before
    assert list(Path().iterdir()) == [FILE]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("trap", TRAPS)
def test_a_hostile_pickle_does_not_run(trap: str, zipped: bool, protocol: int) -> None:
    """Weights beside it are read; a weight that it stands for is named."""
    trapped, weights = TRAPS[trap], DAT.build_theirs().state_dict()
    model = datbench.create_model(DAT.spec, device="meta")
    settings = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    torch.save({"args": trapped, "model": {**weights, "x": trapped}}, FILE, **settings)
    assert "x" in match_checkpoint(model, FILE)[1].ignored
    torch.save({"model": {**weights, "cls_head.bias": trapped}}, FILE, **settings)
    with pytest.raises(CheckpointError, match=r"cls_head.bias is not a plain tensor \("):
        match_checkpoint(model, FILE)
    FILE.write_bytes(pickle.dumps(trapped, protocol=protocol))
    with pytest.raises(CheckpointError, match=DAMAGED):
        match_checkpoint(model, FILE)
    assert not Path("marker").exists()
    with contextlib.suppress(TypeError):
        pickle.loads(pickle.dumps(trapped))
    assert Path("marker").exists()  # the trap does work


@pytest.mark.parametrize(
    "target", [torch._utils._rebuild_tensor_v2, torch.Tensor, collections.OrderedDict, StandIn]
)
def test_a_file_cannot_change_what_reads_it(target: Any) -> None:
    """The opcode BUILD sets attributes on whatever stands before it."""
    before, defaults = dict(vars(target)), getattr(target, "__defaults__", None)
    state = pickle.dumps((None, {"copied": 1, "__defaults__": (1,)}), 2)[2:-1]
    named = f"c{target.__module__}\n{target.__qualname__}\n".encode()
    with zipfile.ZipFile(FILE, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + named + state + b"b.")
        archive.writestr("archive/version", "3\n")
    with pytest.raises(CheckpointError):
        weight_sets(FILE)
    assert dict(vars(target)) == before
    assert getattr(target, "__defaults__", None) == defaults


def test_a_file_cannot_have_a_patch_written() -> None:
    """torch's format before 1.6 writes one where the source of a module differs."""
    torch.save({}, FILE, _use_new_zipfile_serialization=False)
    head = FILE.read_bytes().split(pickle.dumps({}, 2))[0]
    name, state = pickle.dumps("module", 2)[2:-1], (None, {"dump_patches": 1, "__name__": "mark"})
    function = b"ctorch._utils\n_rebuild_tensor_v2\n" + pickle.dumps(state, 2)[2:-1] + b"b"
    source = pickle.dumps("theirs", 2)[2:-1]
    FILE.write_bytes(head + b"\x80\x02(" + name + function + source * 2 + b"tQ." + b"\x80\x02].")
    with pytest.raises(CheckpointError):
        weight_sets(FILE)
    assert list(Path().iterdir()) == [FILE]


def test_a_path_that_holds_no_file(run: Run) -> None:
    assert show(run, "missing.pth") == "checkpoint missing.pth does not exist."
    Path("folder.pth").mkdir()
    assert show(run, "folder.pth") == "checkpoint folder.pth is a directory."
    assert show(run, "") == "checkpoint . is a directory."
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe.pth")
        assert show(run, "pipe.pth") == "checkpoint pipe.pth is not a file."


def test_of_a_deeper_model_the_first_differences_are_named(run: Run) -> None:
    torch.save({"model": shapes("dat_s")}, FILE)
    message = show(run, FILE)
    assert message.startswith("weights.pth is a checkpoint of another model: ")
    assert "stages.2.layer_norms.12.norm.weight (384,) is not in the model; " in message
    assert message.count(";") == 3
    assert message.endswith(" more.")


def test_of_a_shallower_model_the_first_missing_are_named(run: Run) -> None:
    torch.save({"model": shapes("dat_t")}, FILE)
    message = show(run, FILE, "dat_s")
    assert "stages.2.blocks.6.norm1.weight is not in the file" in message
    message = show(run, FILE, "dat_b")
    assert (
        "patch_proj.0.weight is (96, 3, 4, 4) in the file, (128, 3, 4, 4) in the model" in message
    )
    assert "is a checkpoint of another model" in show(run, FILE, "datpp_t")


def test_safetensors_are_refused_as_well(run: Run) -> None:
    path = Path("weights.safetensors")
    save_file(DAT.build_theirs().state_dict(), path)
    assert "is a checkpoint of another model" in show(run, path)
    whole = path.read_bytes()
    for content in (whole[:-100], whole[:50], b"", b"text", b"\xff" * 100):
        path.write_bytes(content)
        assert show(run, path).startswith("weights.safetensors cannot be read as safetensors: ")
    save_file({}, path)
    assert "holds no weights" in show(run, path)


def test_debug_shows_what_torch_said(run: Run) -> None:
    _text(FILE)
    with pytest.raises(CheckpointError) as caught:
        run("--debug", "show", "dat_t", "--checkpoint", str(FILE))
    assert caught.value.__cause__ is not None


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small sound file of every kind."""
    folder = tmp_path_factory.mktemp("sound")
    content = {"model": {"stages.0.b": torch.ones(3, 3), "c": torch.zeros(2)}}
    torch.save(content, folder / "zip.pth")
    torch.save(content, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file(content["model"], folder / "weights.safetensors")
    content["args"] = argparse.Namespace(lr=0.1, steps=collections.deque([1]))
    torch.save(content, folder / "foreign_zip.pth")
    torch.save(content, folder / "foreign_old.pth", _use_new_zipfile_serialization=False)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_ends_in_one_kind_of_error(
    files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=4)):
        content[place] = value
    content = content[: data.draw(st.one_of(st.just(len(content)), places))]
    path = tmp_path_factory.getbasetemp() / f"damaged_{name}"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert weight_sets(path)
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017
