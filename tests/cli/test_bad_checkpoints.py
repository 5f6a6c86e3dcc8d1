"""Files that are no checkpoint of the model: refused in one line, and never run."""

import os
import pickle
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from datbench.errors import CheckpointError
from datbench.models.checkpoints import read_weights

from .published import DAT, shapes
from .runner import Run

FILE = Path("weights.pth")
DAMAGED = "it is damaged, cut short or no checkpoint"


def show(run: Run, path: str | Path, model: str = "dat_t") -> str:
    return run("show", model, "--checkpoint", str(path)).complaint()


class Hostile:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("marker",)


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
    "a whole module": (
        lambda path: torch.save(torch.nn.Linear(2, 2), path),
        "unpickling it would import torch.nn.modules.linear.Linear, which may run code",
    ),
    "a numpy number": (
        lambda path: torch.save({"model": shapes("dat_t"), "best": np.float64(81.6)}, path),
        "Save its weights alone (torch.save of a state_dict, or safetensors).",
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
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_hostile_pickle_is_refused_before_it_runs(run: Run, how: str, protocol: int) -> None:
    content = {"model": {"patch_proj.0.bias": torch.ones(96), "x": Hostile()}}
    if how == "torch":
        torch.save(content, FILE, pickle_protocol=protocol)
    else:
        FILE.write_bytes(pickle.dumps(Hostile(), protocol=protocol))
    message = show(run, FILE)
    assert "which may run code" in message or DAMAGED in message
    assert not Path("marker").exists()
    if how == "torch" and protocol == 2:
        assert "would import posix.mkdir" in message or os.name != "posix"
    pickle.loads(pickle.dumps(Hostile()))  # the trap does work
    assert Path("marker").exists()


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
    content = {"model": {"a.b": torch.ones(3, 3), "c": torch.zeros(2)}}
    torch.save(content, folder / "zip.pth")
    torch.save(content, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file(content["model"], folder / "weights.safetensors")
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
            assert read_weights(path)
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017
