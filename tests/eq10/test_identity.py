"""Formula + causes = counted, for every attention module, at any size, as integers."""

from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import datbench
from datbench.eq10 import formulas, identity
from datbench.eq10.formulas import evaluate, formula_of, names_of
from datbench.eq10.identity import FVCORE, attribute, identities
from datbench.eq10.records import ModuleTerms, Sizes
from datbench.errors import UsageError
from datbench.models.config import (
    Deformable,
    DeformableDetr,
    Mixer,
    Neighborhood,
    SpatialReduction,
    Window,
)
from datbench.models.dat import REGISTRY
from datbench.models.mixers import chunks, make_mixer
from datbench.models.resolve import resolve
from datbench.setting import ATTENTIONS, Attention, Kind, Resolution

sides = st.integers(1, 23)


@st.composite
def deformables(draw: st.DrawFn) -> Deformable:
    stride = draw(st.integers(1, 4))
    offsets = draw(st.booleans())
    return Deformable(
        groups=draw(st.sampled_from([1, 2, 4])),
        kernel=draw(st.sampled_from([3, 5, 7, stride])),
        stride=stride if offsets else 1,
        offset_range=draw(st.sampled_from([None, 2.0])),
        bias=draw(st.sampled_from(["relative", "none", "dwconv", "fixed"])),
        offsets=offsets,
        code=draw(st.sampled_from([2022, 2023])),
    )


mixers: st.SearchStrategy[Mixer] = st.one_of(
    deformables(),
    st.builds(Window, st.integers(2, 7), st.just(1)),
    st.builds(Window, st.integers(1, 7)),
    st.builds(SpatialReduction, st.integers(1, 4)),
    st.builds(Neighborhood, st.sampled_from([3, 5, 7])),
    st.builds(DeformableDetr, st.integers(1, 9)),
)


@settings(max_examples=100, deadline=None)
@given(mixers, sides, sides, st.sampled_from([8, 24]), st.sampled_from(ATTENTIONS))
def test_every_term_is_what_is_counted(
    config: Mixer, height: int, width: int, dim: int, attention: Attention
) -> None:
    """On a standalone module, counted under the fvcore convention."""
    if isinstance(config, SpatialReduction) and min(height, width) < config.ratio:
        return  # no key is left
    if isinstance(config, Deformable):
        least = config.kernel if config.code == 2023 and config.kernel == config.stride else 1
        if min(height, width) < least:
            return  # the unpadded kernel does not fit
    trained = 7  # side that the tables are for
    with torch.device("meta"):
        mixer = make_mixer(config, dim, 4, trained).eval()
        x = torch.empty(1, height, width, dim)
    mixer.attention = attention
    formula = formula_of(mixer, height, width)
    if isinstance(config, Deformable) and config.bias == "fixed":
        points = trained // config.stride
        if formula.sizes.keys != points * points and (height, width) == (trained, trained):
            return  # the table, which is not resized there, is for other keys
    with mock.patch.object(chunks, "LIMIT", 200):
        count = datbench.count(mixer, x)
    counted = attribute("", mixer, formula, count.calls)
    predicted = {e.name: e.predicted for e in formula.expected if e.predicted}
    assert counted == predicted
    assert sum(counted.values()) == count.total(FVCORE)
    for term in formula.expected:
        assert (term.formula == term.predicted) is (term.cause == "")


def _of(name: str, width: int, height: int) -> list[ModuleTerms]:
    return identities(resolve(name), Resolution(width, height))


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [
        *((name, 333, 97) for name in REGISTRY),
        # At the training size S and B have the blocks of T.
        *((name, 224, 224) for name in REGISTRY if "_t" in name),
    ],
)
def test_every_module_of_every_variant(name: str, width: int, height: int) -> None:
    found = _of(name, width, height)
    assert len(found) == sum(len(s.blocks) for s in REGISTRY.get(name).config.stages)
    for terms in found:
        assert terms.holds, (terms.module, terms.terms)


def _written_otherwise(formula: formulas.Formula) -> formulas.Formula:
    text = formula.formula.replace("4 HW", "3 HW").replace("2 Ns", "Ns")
    return replace(formula, formula=text)


def _first_term(**changes: object) -> Callable[[formulas.Formula], formulas.Formula]:
    def change(formula: formulas.Formula) -> formulas.Formula:
        first, *others = formula.expected
        return replace(formula, expected=(replace(first, **changes), *others))

    return change


@pytest.mark.parametrize(
    "change",
    [
        _first_term(formula=1),
        _first_term(predicted=1),  # what follows from the sizes
        _first_term(cause="no reason"),
        _written_otherwise,  # the amounts are right beside each other, and the text tells
    ],
)
def test_a_wrong_formula_fails(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[formulas.Formula], formulas.Formula]
) -> None:
    original = identity.formula_of
    monkeypatch.setattr(identity, "formula_of", lambda *given: change(original(*given)))
    assert not any(terms.holds for terms in _of("dat_t", 224, 224))


@pytest.mark.parametrize(
    ("kind", "weight"), [(Kind.SAMPLE, 3), (Kind.NORM, 4), (Kind.LINEAR, 2), (Kind.CONV, 2)]
)
def test_a_wrong_count_fails(monkeypatch: pytest.MonkeyPatch, kind: Kind, weight: int) -> None:
    other = replace(FVCORE, weights={**FVCORE.weights, kind: weight})
    monkeypatch.setattr(identity, "FVCORE", other)
    found = [terms for terms in _of("dat_t", 224, 224) if terms.kind == "DMHA"]
    assert not any(terms.holds for terms in found)
    causes = [t.cause for terms in found for t in terms.terms if t.counted != t.predicted]
    assert causes
    assert all("NOT EXPLAINED: " in cause for cause in causes)


class _Uses(nn.Module):
    """A mixer used as others may use one: by name, twice, on two images, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleDict({"a": make_mixer(Window(7), 12, 3, 14)})
        self.idle = make_mixer(Window(7), 12, 3, 14)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :14, :14].permute(0, 2, 3, 1).repeat(2, 1, 1, 4)  # (2, 14, 14, 12)
        x = self.stages["a"](x=x)
        y: Tensor = self.stages["a"](x)
        return y


def test_a_module_in_somebody_elses_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "build_for_count", lambda spec, setting: _Uses().to("meta"))
    (terms,) = _of("torch.nn:Identity", 32, 32)
    assert (terms.module, terms.stage, terms.runs) == ("stages.a", 0, 4)
    assert terms.holds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 HW Ns C + 2 HW C² + 2 Ns C² + (k² + 2) Ns C", 2 * 6 * 4 * 5 + 2 * 150 + 200 + 11 * 20),
        ("4 M (2H - 1)(2W - 1)", 4 * 7 * 3 * 5),
        ("2 (HW)² C", 2 * 36 * 5),
        ("3 M K HW C - 1", 3 * 7 * 3 * 6 * 5 - 1),
    ],
)
def test_expressions(text: str, value: int) -> None:
    names = names_of(Sizes(2, 3, 4, 5, 7, kernel=3))
    assert evaluate(text, names) == value


def test_expressions_are_refused() -> None:
    for text in ("", "2 X", "2 +", "(C", "C)", "C * 2", "C^2", "C ()"):
        with pytest.raises(ValueError, match=r"."):
            evaluate(text, names_of(Sizes(2, 3, 4, 5, 7)))


def test_the_released_stage_3_is_what_fvcore_counts() -> None:
    """147.141M by Eq. 10, 149.662M with LayerNorm, sampling and the bias."""
    terms = next(t for t in _of("dat_t", 224, 224) if t.stage == 3 and t.kind == "DMHA")
    assert (terms.by_formula, terms.counted) == (147_141_120, 149_662_464)
    residuals = {t.name: t.residual for t in terms.terms if t.residual}
    assert residuals == {
        formulas.OFFSET_NORM: 376_320,
        formulas.SAMPLING: 301_056,
        formulas.BIAS: 1_843_968,
    }
    assert (terms.sizes.keys, terms.sizes.kernel, terms.sizes.stride) == (196, 5, 1)


def test_causes_beyond_what_is_left_out() -> None:
    def causes(name: str, width: int, height: int) -> set[str]:
        return {t.cause for m in _of(name, width, height) for t in m.terms if t.cause}

    assert causes("dat_t_no_offsets", 224, 224) == {"the offset network is built and does not run"}
    assert "the map is padded to 784 pixels, multiples of a window" in causes("dat_t", 400, 400)
    detr = causes("dat_t_ddetr_16_16", 224, 224)
    assert detr == {"a product and a sum of elements, to which fvcore gives no weight"}


def test_global_attention_is_spatial_reduction_by_one() -> None:
    with torch.device("meta"):
        mixer = make_mixer(SpatialReduction(1), 8, 2, 7)
    formula = formula_of(mixer, 5, 6)
    assert (formula.kind, formula.sizes.keys) == ("MSA", 30)
    hw, c = 30, 8
    assert sum(e.formula for e in formula.expected) == 4 * hw * c * c + 2 * hw * hw * c


def test_a_module_is_placed() -> None:
    found = _of("datpp_t", 224, 224)
    assert [t.stage for t in found[:3]] == [1, 1, 2]
    assert {t.kind for t in found} == {"NA", "DMHA"}
    assert found[0].module == "stages.0.blocks.0.mixer"
    strides = [t.sizes.stride for t in found if t.kind == "DMHA"]
    assert sorted(set(strides)) == [1, 2, 4, 8]


def test_a_model_without_such_modules() -> None:
    with pytest.raises(UsageError, match="dat_t has deformable and window attention"):
        identities(resolve("torch.nn:Identity"), Resolution(32, 32))
