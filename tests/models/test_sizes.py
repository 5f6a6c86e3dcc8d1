"""Sizes at the edge, dense features, training, and what is refused."""

from dataclasses import replace

import pytest
import torch

import datbench
from datbench.models.spec import by_name
from tests.nets import narrow

KINDS = ["dat_t", "datpp_t", "dat_t_sra", "dat_t_ddetr_16_16"]


@pytest.mark.parametrize("name", [*KINDS, "dat_t_fixed_bias", "dat_t_no_offsets"])
@pytest.mark.parametrize("size", [(32, 32), (32, 300), (33, 47)])
def test_smallest_inputs_are_finite(name: str, size: tuple[int, int]) -> None:
    """The published DAT++ is NaN at 32x32, where a grid of one point divides by zero."""
    model = datbench.create_model(narrow(name)).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 3, *size))
    assert logits.shape == (2, 1000)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", ["dat_t", "datpp_t"])
def test_dense_features(name: str) -> None:
    model = datbench.create_model(narrow(name), features_only=True).eval()
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 96, 160))
    dims = [stage.dim for stage in model.config.stages]
    assert [tuple(m.shape) for m in maps] == [
        (1, dim, 24 >> i, 40 >> i) for i, dim in enumerate(dims)
    ]
    # Normalised over channels: what a neck expects.
    for m in maps:
        assert m.mean(dim=1).abs().max() < 1e-5
    assert not any(key.startswith("head.") for key in model.state_dict())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", KINDS)
def test_every_trainable_parameter_gets_a_gradient(name: str, attention: str) -> None:
    model = datbench.create_model(narrow(name), attention=attention, drop_path=0.2).train()
    with torch.no_grad():  # zero weights would hide a broken path
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.normal_(0, 0.02)
    # Larger than 32: at 32x32 a stage has one sampling point, and a softmax over one key is 1.
    model(torch.randn(8, 3, 96, 96)).square().mean().backward()
    without = [
        key
        for key, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert without == []


def test_eager_and_fused_gradients_agree() -> None:
    x = torch.randn(1, 3, 64, 96)
    gradients = []
    for attention in ("eager", "sdpa"):
        torch.manual_seed(0)
        model = datbench.create_model(narrow("datpp_t"), attention=attention)
        model(x).square().sum().backward()
        gradients.append(model.stages[0].blocks[0].mixer.bias_table.grad)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)


def test_drop_path_follows_the_linear_rule_and_stops_in_evaluation() -> None:
    model = datbench.create_model(narrow("dat_t"), drop_path=0.2)
    rates = [
        getattr(block.drop_path, "rate", 0.0) for stage in model.stages for block in stage.blocks
    ]
    assert rates == pytest.approx([0.2 * i / 11 for i in range(12)])
    model.eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))


def test_building_where_torch_is_told_to() -> None:
    """Building on meta calls nothing that needs values."""
    for name in datbench.list_models():
        model = datbench.create_model(name, device="meta")
        assert all(t.is_meta for t in (*model.parameters(), *model.buffers()))
    with torch.device("meta"):
        inside = datbench.create_model("dat_t")
        other = datbench.create_model("dat_t", device="cpu")
    assert all(t.is_meta for t in (*inside.parameters(), *inside.buffers()))
    assert not any(t.is_meta for t in (*other.parameters(), *other.buffers()))


def test_half_precision_runs() -> None:
    model = datbench.create_model(narrow("dat_t"), attention="sdpa").eval().bfloat16()
    with torch.no_grad():
        logits = model(torch.randn(1, 3, 100, 100, dtype=torch.bfloat16))
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


def test_a_duplicate_name_raises() -> None:
    spec = narrow("dat_t")
    with pytest.raises(ValueError, match="duplicate"):
        by_name((spec, replace(spec)))


@pytest.mark.parametrize("name", ["dat_t", "datpp_t"])
def test_a_hook_sees_what_a_layer_made(name: str) -> None:
    """Without gradients the GELU overwrites its input, unless somebody may have kept it."""
    model = datbench.create_model(narrow(name)).eval()
    ffn = model.stages[0].blocks[0].ffn
    seen: dict[str, torch.Tensor] = {}
    ffn.linear1.register_forward_hook(lambda m, x, y: seen.update(x=x[0].clone(), y=y))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        hooked = model(x)
        torch.testing.assert_close(
            seen["y"], torch.nn.functional.linear(seen["x"], ffn.linear1.weight, ffn.linear1.bias)
        )
        ffn.linear1._forward_hooks.clear()
        torch.testing.assert_close(model(x), hooked)
