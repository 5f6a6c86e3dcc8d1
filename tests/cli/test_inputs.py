"""What a model takes in place of one image, from the command line to the result."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datbench import Resolution, Setting
from datbench.errors import UsageError
from datbench.inputs import DTYPES, Given, TensorOf, parse
from datbench.memory.simulation import memory_row
from datbench.models.resolve import resolve
from datbench.run import Inputs, make_inputs, ready
from datbench.setting import How

from .runner import Run

NETS = "tests.nets_with_inputs:"
CONV = 8 * 27  # multiply-adds a pixel

# Each model's multiply-adds, by hand, at 32x32.
MODELS = {
    "Pair": (["left=float:{B}x3x{H}x{W}", "right=float:{B}x3x{H}x{W}"], 2 * CONV * 32 * 32),
    "Batch": (["{image=float:{B}x3x{H}x{W}, id=7}"], CONV * 32 * 32),
    "Words": (["int64:{B}x77:0..99"], 77 * 64),
    "Captioned": (
        ["float:{B}x3x{H}x{W}", "ids=int64:{B}x77:0..99", "scale=0.5"],
        CONV * 32 * 32 + 77 * 64,
    ),
    "Digits": (["float:{B}x1x28x28"], 6 * 25 * 28 * 28 + 6 * 14 * 14 * 10),
    "clip": (["float:{B}x3x8x{H}x{W}"], 4 * 3 * 75 * 8 * 16 * 16),
    "Named": (["x=float:2x4", "mask=float:2x5:ones"], 2 * 4 * 5),
    "Sized": (["float:1x3x{H}x{W},[2,3]"], CONV * 34 * 35),
    "half": (["x=float:3x4"], 3 * 4 * 5),
    "Detector": (["[float:3x32x32,float:3x16x{W/2}]"], CONV * (32 * 32 + 16 * 16)),
    "Answers": ([], 2 * 4 * 5),
    "volume": ([], 2 * 27 * 4 * 32 * 32),
    "bilinear": ([], 2 * 5 * (3 * 4 + 3)),
}


def _options(inputs: list[str]) -> list[str]:
    return [word for text in inputs for word in ("--input", text)]


def _setting(name: str, **changes: object) -> Setting:
    inputs = tuple(MODELS[name][0])
    return Setting(Resolution(32, 32), inputs=inputs, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_counted_simulated_and_gated(run: Run, tmp_path: Path, name: str) -> None:
    inputs, macs = MODELS[name]
    res = ["--res", "32"] if "{W" in str(inputs) or name == "volume" else []
    words = [f"{NETS}{name}", *_options(inputs), *res]
    (row,) = run("flops", *words, "--convention", "fvcore", "--format", "json").rows
    assert row["operators"]
    if name != "bilinear":  # fvcore has no rule for it
        assert row["amount"] == macs
    told = row["setting"].get("inputs")
    assert told[0].startswith("example_inputs") if not inputs else told == inputs
    assert run("memory", *words, "--mode", "backward").code == 0
    baseline = str(tmp_path / "baseline.json")
    assert run("gate", "update", *words, "--baseline", baseline).code == 0
    assert run("gate", "check", "--baseline", baseline).code == 0


@pytest.mark.parametrize("name", MODELS)
def test_what_is_timed_is_what_is_counted(name: str) -> None:
    runner = ready(f"{NETS}{name}", _setting(name, device="cpu"), How())
    runner()
    again = make_inputs(_setting(name, device="cpu"), runner.model)
    for one, other in zip(
        torch.utils._pytree.tree_leaves(runner.inputs),
        torch.utils._pytree.tree_leaves(again),
        strict=True,
    ):
        assert one.equal(other) if isinstance(one, torch.Tensor) else one == other


def test_late_weights_are_made_by_the_inputs(run: Run) -> None:
    words = ["params", f"{NETS}Late", "--format", "json"]
    (row,) = run(*words, "--input", "float:1x2x10").rows
    assert row["params"] == 2 * 4 * 3 + 4 + (4 * 8 + 1) * 5
    assert "say what it takes" in run(*words).complaint(5)


def test_memory_of_inputs_by_hand() -> None:
    found = memory_row(resolve(f"{NETS}Words"), _setting("Words", batch=2), "inference")
    assert found.line("inputs").amount == 2 * 77 * 8
    assert found.line("outputs").amount == 2 * 77 * 8 * 4


def test_a_model_that_needs_values_gets_them(run: Run) -> None:
    found = run("flops", f"{NETS}Keeps", "--input", "float:6x4:ones", "--format", "json")
    assert "was run with real ones" in found.err
    assert json.loads(found.out)["rows"][0]["amount"] == 6 * 4 * 5


def test_files_hold_values(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((3, 4), np.float32))
    torch.save(torch.zeros(7, 4), "x.pt")
    Image.new("RGB", (50, 40), "white").save("x.png")
    for name, macs in (("x.npy", 3 * 20), ("x.pt", 7 * 20)):
        (row,) = run("flops", f"{NETS}Named", "--input", f"x={name}", "--format", "json").rows
        assert row["amount"] == macs
    words = ["flops", f"{NETS}Batch", "--input", "{image=x.png}", "--res", "24x16", "--batch", "2"]
    (row,) = run(*words, "--format", "json").rows
    assert row["amount"] == 2 * CONV * 24 * 16
    setting = Setting(Resolution(8, 8), device="cpu", inputs=("x.png",))
    ((image,), _) = make_inputs(setting, torch.nn.Identity())
    white = [(1 - mean) / std for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert image.mean((0, 2, 3)).tolist() == pytest.approx(white, rel=1e-5)
    (tmp_path / "bad.npy").write_bytes(b"no array")
    for name, said in (("none.npy", "there is no file none.npy"), ("bad.npy", "cannot be read")):
        assert said in run("flops", f"{NETS}Named", "--input", f"x={name}").complaint(2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["Pair"], "if it does not take one image, say what it takes: --input x=float:"),
        (["Named", "--input", "x=float:2x4", "--batch", "3"], "no --input has a side {B}"),
        (["Named", "--input", "x=float:2x4", "--res", "64"], "no --input has a side {H} or {W}"),
        (["Named", "--input", "x=flot:2x4"], "before 'flot:2x4' no value stands here"),
        (["Named", "--input", "x=float:2x4,x=float:1"], "--input gives x twice"),
        (["Named", "--input", "x=int64:3:9..1"], "9..1 is empty"),
        (["Named", "--input", "x=uint8:3:0..256"], "uint8 does not hold the whole numbers 0..256"),
        (["Named", "--input", "x=[float:2"], "']' is missing"),
        (["Named", "--input", ""], "at its end no value stands here"),
        (["Answers", "--batch", "2"], "the inputs example_inputs have one size"),
    ],
)
def test_what_is_refused(run: Run, words: list[str], said: str) -> None:
    found = run("flops", f"{NETS}{words[0]}", *words[1:])
    assert found.code in (2, 5)
    assert said in found.err.replace("',' is missing", "']' is missing")
    assert len(found.err.splitlines()) == 1


def test_a_table_says_inputs(run: Run, tmp_path: Path) -> None:
    inputs, macs = MODELS["Pair"]
    build = f'{{ model = "{NETS}Pair", res = "32", inputs = {json.dumps(inputs)} }}'
    (tmp_path / "mine.toml").write_text(
        f'title = "T"\nsource = "S"\nrows = [{{ method = "P", macs = "{macs / 1e6:.4f}", '
        f'build = {build} }}]\n[columns]\nmethod = {{ title = "M" }}\n'
        'macs = { title = "MACs", quantity = "macs", unit = "M" }\n'
    )
    assert run("table", str(tmp_path / "mine.toml"), "--check").code == 0


def test_the_limit_of_pyramids_is_theirs_alone(run: Run) -> None:
    assert run("flops", f"{NETS}Digits", "--input", "float:1x1x28x28").code == 0
    assert "dat_t at 28x28: both sides need at least 32 pixels" in (
        run("flops", "dat_t", "--res", "28").complaint(2)
    )
    assert run("flops", "timm:resnet18", "--res", "16").code == 0


# The words themselves.

names = st.from_regex(r"\A[A-Za-z_][A-Za-z_0-9]{0,8}\Z")
sides = st.lists(st.one_of(st.integers(0, 10**6).map(str), st.sampled_from(["{B}", "{H/4}"])))


@settings(max_examples=80, deadline=None)
@given(names, st.sampled_from(DTYPES), sides, st.sampled_from(["", ":zeros", ":ones", ":-3..9"]))
def test_a_tensor_is_read_back(name: str, dtype: str, shape: list[str], fill: str) -> None:
    text = f"{name}={dtype}:{'x'.join(shape)}{fill}"
    if fill == ":-3..9" and dtype not in ("int64", "int32", "int16", "int8"):
        with pytest.raises(UsageError, match=f"{dtype} does not hold the whole numbers -3..9"):
            parse((text,))
        return
    ((found),) = parse((text,))
    assert isinstance(found.value, TensorOf)
    assert (found.name, found.value.dtype, found.value.sides) == (name, dtype, tuple(shape))
    sizes = {"B": 2, "H": 64, "W": 32}
    numbers = {"{B}": 2, "{H/4}": 16}
    assert found.value.shape(sizes) == tuple(numbers.get(side) or int(side) for side in shape)
    if fill == ":-3..9":
        assert (found.value.low, found.value.high) == (-3, 9)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="xf:loat1{B}H,[]()='\"ab.png ", max_size=20))
def test_any_text_is_arguments_or_one_line(text: str) -> None:
    try:
        found = parse((text,))
    except UsageError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert all(isinstance(each, Given) for each in found)


def test_random_numbers_lie_in_their_range() -> None:
    setting = Setting(
        Resolution(32, 32),
        device="cpu",
        inputs=("int64:1000:5..7", "bool:1000", "uint8:10:zeros", "bfloat16:3", "complex64:2"),
    )
    found = make_inputs(setting, torch.nn.Identity())
    assert isinstance(found, Inputs)
    ids, flags, zeros, short, whole = found.args
    assert set(ids.tolist()) == {5, 6, 7}
    assert set(flags.tolist()) == {False, True}
    assert zeros.tolist() == [0] * 10
    assert (short.dtype, whole.dtype) == (torch.bfloat16, torch.complex64)
