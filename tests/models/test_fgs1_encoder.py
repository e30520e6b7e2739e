"""The sequence encoder: padding, direction, length, and memory that is traded for time without changing results."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy_network import TINY

from spectramind.models.fgs1_encoder import FGS1Encoder, summary, tokens
from spectramind.models.network_inputs import FGS1_CHANNELS
from spectramind.models.options import SSMOptions

KINDS = ("mamba2", "mamba1", "transformer")


def encoder(**changes) -> FGS1Encoder:
    torch.manual_seed(0)
    return FGS1Encoder(replace(TINY.ssm, **changes)).double().eval()


def sequence(*shape: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(*shape, len(FGS1_CHANNELS), dtype=torch.float64)


def reach(model: FGS1Encoder, step: int, steps: int = 60) -> tuple[bool, bool]:
    """Whether the encoding of `step` depends on earlier and on later steps."""
    x = sequence(1, steps).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x, torch.tensor([steps]))[0, step].sum(), x)
    seen = gradient[0].abs().sum(-1) > 0
    return bool(seen[:step].any()), bool(seen[step + 1 :].any())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer_norm", ["rms", "layernorm"])
def test_padding_changes_nothing(kind: str, layer_norm: str) -> None:
    model, x, n_steps = encoder(kind=kind, layer_norm=layer_norm), sequence(2, 50), torch.tensor([50, 31])
    y = model(x, n_steps)
    assert y.shape == (2, 50, TINY.ssm.proj_out)
    padded = x.clone()
    padded[1, 31:] = 1e3
    torch.testing.assert_close(model(padded, n_steps)[1, :31], y[1, :31])
    alone = model(x[1:, :31], n_steps[1:])
    torch.testing.assert_close(alone[0], y[1, :31])
    torch.testing.assert_close(summary(y, n_steps)[1], alone[0].mean(dim=0))
    torch.testing.assert_close(
        tokens(y, n_steps, 4), torch.cat([tokens(y[:1], n_steps[:1], 4), tokens(alone, n_steps[1:], 4)])
    )


def test_tokens_are_means_of_equal_parts() -> None:
    x = torch.arange(24.0).reshape(1, 12, 2)
    torch.testing.assert_close(tokens(x, torch.tensor([8]), 4), x[:, :8].reshape(1, 4, 2, 2).mean(dim=2))


@pytest.mark.parametrize("kind", ["mamba2", "mamba1"])
def test_the_direction_sets_the_receptive_field(kind: str) -> None:
    assert reach(encoder(kind=kind, bidirectional=True), 30) == (True, True)
    assert reach(encoder(kind=kind, bidirectional=False), 30) == (True, False)


def test_time_reversed_sequences_with_swapped_directions_give_the_reversed_encoding() -> None:
    model, x = encoder(), sequence(1, 40)
    n_steps = torch.tensor([40])
    y = model(x, n_steps)
    for layer in model.layers:
        layer.fwd, layer.bwd = layer.bwd, layer.fwd
    torch.testing.assert_close(model(x.flip(1), n_steps).flip(1), y)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputing_layers_changes_no_gradient(kind: str) -> None:
    gradients = []
    for checkpoint_steps in (0, 10_000):
        model = encoder(kind=kind, checkpoint_steps=checkpoint_steps, dropout=0.3).train()
        torch.manual_seed(5)
        model(sequence(2, 30), torch.tensor([30, 20])).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_parameters_do_not_depend_on_the_length() -> None:
    model = encoder()
    for steps in (1, 2, 17, 300):
        assert model(sequence(1, steps), torch.tensor([steps])).isfinite().all()


@pytest.mark.slow
def test_a_full_visit_is_read_forwards_and_backwards() -> None:
    """67,500 pairs of reads; memory is that of one layer."""
    options = SSMOptions(d_model=16, d_state=8, head_dim=16, n_layers=2, proj_out=8)
    model = FGS1Encoder(options)
    y = model(torch.randn(1, 67_500, 6), torch.tensor([67_500]))
    y.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
