"""State-space layers against their defining recurrence, in outputs and gradients, and their safety."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectramind.errors import SettingsError
from spectramind.models import ssm
from spectramind.models.ssm import Mamba1, Mamba2, ssd

PARAMETERS = json.loads((Path(__file__).parent / "mamba_ssm_parameters.json").read_text())
CHUNK = 16


def mamba2(chunk: int = CHUNK, scan: ssm.Scan = "auto") -> Mamba2:
    torch.manual_seed(0)
    return Mamba2(16, d_state=6, d_conv=4, expand=2, headdim=8, chunk=chunk, scan=scan)


def mamba1(chunk: int = CHUNK) -> Mamba1:
    torch.manual_seed(0)
    return Mamba1(16, d_state=6, d_conv=4, expand=2, chunk=chunk)


def convolved(layer: nn.Module, x: Tensor) -> Tensor:
    """The causal depthwise convolution, written out: out_t = bias + sum_k weight_k x_(t - 3 + k)."""
    out = []
    for t in range(x.shape[1]):
        terms = [layer.conv1d.weight[:, 0, k] * x[:, t - 3 + k] for k in range(4) if t - 3 + k >= 0]
        out.append(F.silu(layer.conv1d.bias + sum(terms)))
    return torch.stack(out, dim=1)


def mamba2_by_definition(layer: Mamba2, u: Tensor) -> Tensor:
    z, xBC, dt = (u @ layer.in_proj.weight.T).split(
        [layer.d_inner, layer.d_inner + 2 * layer.d_state, layer.nheads], -1
    )
    x, B, C = convolved(layer, xBC).split([layer.d_inner, layer.d_state, layer.d_state], dim=-1)
    A, outputs = -layer.A_log.exp(), []
    h = u.new_zeros(u.shape[0], layer.nheads, layer.headdim, layer.d_state)
    for t in range(u.shape[1]):
        x_t = x[:, t].reshape(-1, layer.nheads, layer.headdim)
        dt_t = F.softplus(dt[:, t] + layer.dt_bias)
        h = (dt_t * A).exp()[..., None, None] * h + torch.einsum("bh,bhp,bn->bhpn", dt_t, x_t, B[:, t])
        y_t = torch.einsum("bhpn,bn->bhp", h, C[:, t]) + layer.D[:, None] * x_t
        gated = y_t.flatten(1) * F.silu(z[:, t])
        outputs.append(gated * torch.rsqrt(gated.square().mean(-1, keepdim=True) + 1e-5) * layer.norm.weight)
    return torch.stack(outputs, dim=1) @ layer.out_proj.weight.T


def mamba1_by_definition(layer: Mamba1, u: Tensor) -> Tensor:
    x, z = (u @ layer.in_proj.weight.T).chunk(2, dim=-1)
    x = convolved(layer, x)
    low_rank, B, C = (x @ layer.x_proj.weight.T).split([layer.dt_rank, layer.d_state, layer.d_state], dim=-1)
    dt = F.softplus(low_rank @ layer.dt_proj.weight.T + layer.dt_proj.bias)
    A, outputs = -layer.A_log.exp(), []
    h = u.new_zeros(u.shape[0], *A.shape)
    for t in range(u.shape[1]):
        h = (dt[:, t, :, None] * A).exp() * h + (dt[:, t] * x[:, t])[..., None] * B[:, t, None]
        outputs.append(((h * C[:, t, None]).sum(-1) + layer.D * x[:, t]) * F.silu(z[:, t]))
    return torch.stack(outputs, dim=1) @ layer.out_proj.weight.T


@pytest.mark.parametrize("steps", [1, 3, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7])
@pytest.mark.parametrize(("layer", "definition"), [(mamba2, mamba2_by_definition), (mamba1, mamba1_by_definition)])
def test_outputs_and_gradients_are_those_of_the_recurrence(layer, definition, steps: int) -> None:
    model = layer().double()
    u = torch.randn(2, steps, 16, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, steps, 16, dtype=torch.float64)
    results = []
    for function in (model, lambda u: definition(model, u)):
        y = function(u)
        results.append((y, *torch.autograd.grad((y * weight).sum(), [u, *model.parameters()])))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("layer", [mamba2, mamba1])
def test_the_chunk_does_not_matter(layer) -> None:
    u = torch.randn(2, 70, 16, dtype=torch.float64)
    torch.testing.assert_close(layer(5).double()(u), layer(512).double()(u), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", [mamba2, mamba1])
def test_later_steps_have_no_influence(layer) -> None:
    model, u = layer(), torch.randn(1, 50, 16)
    changed = u.clone()
    changed[:, 33:] = 100.0
    torch.testing.assert_close(model(changed)[:, :33], model(u)[:, :33], rtol=1e-5, atol=1e-6)
    assert (model(changed)[:, 33:] != model(u)[:, 33:]).any()


@pytest.mark.parametrize("dt_bias", [-8.0, -1.0, 2.0, 20.0])
@pytest.mark.parametrize("chunk", [32, 256])
def test_single_precision_is_safe_for_all_step_sizes(dt_bias: float, chunk: int) -> None:
    """exp(-cumulative sum), the shortcut, is infinite for most of these."""
    torch.manual_seed(1)
    x, B, C = torch.randn(1, 2000, 4, 8), torch.randn(1, 2000, 16), torch.randn(1, 2000, 16)
    dt = F.softplus(torch.randn(1, 2000, 4) + dt_bias).requires_grad_()
    A = -torch.tensor([0.01, 1.0, 4.0, 16.0])
    y = ssd(x, dt, A, B, C, chunk)
    exact = ssd(x.double(), dt.double(), A.double(), B.double(), C.double(), chunk)
    assert (y - exact).abs().max() < 1e-5 * exact.abs().max()
    (gradient,) = torch.autograd.grad(y.square().sum(), dt)
    assert gradient.isfinite().all()


def test_mixed_precision_keeps_the_states_in_single() -> None:
    torch.manual_seed(1)
    x, B, C = torch.randn(1, 3000, 4, 8).bfloat16(), torch.randn(1, 3000, 16).bfloat16(), torch.randn(1, 3000, 16)
    dt, A = F.softplus(torch.randn(1, 3000, 4) - 4), -torch.tensor([0.01, 1.0, 4.0, 16.0])
    with torch.autocast("cpu", torch.bfloat16):
        y = ssd(x, dt, A, B, C, 64)
    torch.testing.assert_close(y, ssd(x.float(), dt, A, B.float(), C, 64), rtol=0, atol=0)


@pytest.mark.parametrize("layer", [mamba2, mamba1])
def test_mixed_precision_stays_close(layer) -> None:
    model, u = layer(), torch.randn(1, 400, 16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(u).float()
    assert (mixed - model(u)).abs().max() < 0.03 * model(u).abs().max()
    (gradient,) = torch.autograd.grad(mixed.square().sum(), model.A_log)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("size", PARAMETERS["mamba2"])
def test_parameters_are_those_of_mamba_ssm(size: str) -> None:
    d_model, d_state = (int(part.split()[1]) for part in size.split(", "))
    layers = {
        "mamba2": Mamba2(d_model, d_state=d_state, d_conv=4, expand=2, headdim=64, chunk=64),
        "mamba1": Mamba1(d_model, d_state=d_state, d_conv=4, expand=2, chunk=64),
    }
    for name, layer in layers.items():
        assert {key: list(value.shape) for key, value in layer.state_dict().items()} == PARAMETERS[name][size]


def test_initial_step_sizes_and_decays_are_in_range() -> None:
    layer = Mamba2(512, d_state=8, d_conv=4, expand=2, headdim=2, chunk=8)
    dt, decay = F.softplus(layer.dt_bias), layer.A_log.exp()
    assert 1e-3 * 0.999 <= dt.min() < 3e-3 < 3e-2 < dt.max() <= 0.1001
    assert 1 <= decay.min() < 2 < 15 < decay.max() <= 16


def test_the_kernel_is_called_with_grouped_inputs_and_final_step_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the signature of `mamba_chunk_scan_combined`."""

    def stand_in(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int) -> Tensor:
        assert B.shape[2] == C.shape[2] == 1
        return ssd(x, dt, A, B[:, :, 0], C[:, :, 0], chunk_size)

    monkeypatch.setattr(ssm, "ssd_kernel", lambda: stand_in)
    u = torch.randn(2, 40, 16)
    torch.testing.assert_close(mamba2(scan="kernel")(u), mamba2(scan="plain")(u))


def test_without_mamba_ssm_the_kernel_cannot_be_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    ssm.ssd_kernel.cache_clear()
    with pytest.warns(UserWarning, match="plain PyTorch"), pytest.raises(SettingsError, match="extra `gpu`"):
        mamba2(scan="kernel")(torch.randn(1, 4, 16))
    ssm.ssd_kernel.cache_clear()
