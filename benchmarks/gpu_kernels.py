"""Plain PyTorch against the Triton kernel of mamba-ssm, on a CUDA machine: python benchmarks/gpu_kernels.py

For each preset: that weights load strictly both ways between our layer and `mamba_ssm.Mamba2`, how far outputs and
gradients of the kernel and of `mamba_ssm.Mamba2` itself are from ours in float32 and bfloat16 (largest difference /
largest value), then time and memory of the base encoder over full FGS1 visits of 67,500 steps with either scan.
Says so and ends with exit code 2 where there is no CUDA device or no mamba-ssm; with 1 where the kernel is not ours.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from settings.resolve import resolve
from spectramind.models.fgs1_encoder import FGS1Encoder, mamba_layer
from spectramind.models.options import SSMOptions
from spectramind.models.ssm import ssd_kernel

PRESETS = ("small", "medium", "base", "large")
STEPS, VISIT_STEPS = 5_000, 67_500
BATCHES = (1, 4)
REPEATS = 5
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 5e-2}
"""The kernel multiplies float32 in TF32, with ten bits, and bfloat16 has eight."""


def main() -> int:
    console = Console(width=132)
    if not torch.cuda.is_available():
        console.print("No CUDA device: the kernels were not run, nothing was measured.")
        return 2
    if ssd_kernel() is None:
        console.print("mamba-ssm cannot be imported (extra `gpu`): the kernels were not run, nothing was measured.")
        return 2
    console.print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    agree = _parity(console)
    _throughput(console)
    return 0 if agree else 1


def _parity(console: Console) -> bool:
    """Prints the differences; whether all are within `TOLERANCE`."""
    from mamba_ssm import Mamba2 as Theirs

    table = Table("preset", "precision", "against", "output", "gradients", title=f"Differences over {STEPS:,} steps")
    agree = True
    for preset in PRESETS:
        options = resolve([f"model={preset}"]).model.ssm
        plain = _layer(options, "plain")
        others: dict[str, nn.Module] = {
            "scan kernel": _layer(options, "kernel"),
            "mamba_ssm.Mamba2": Theirs(
                options.d_model,
                d_state=options.d_state,
                d_conv=options.d_conv,
                expand=options.expand,
                headdim=options.head_dim,
                use_mem_eff_path=False,
            ).cuda(),
        }
        for name, other in others.items():
            other.load_state_dict(plain.state_dict(), strict=True)
            plain.load_state_dict(other.state_dict(), strict=True)
            for dtype, limit in TOLERANCE.items():
                try:
                    differences = _differences(plain, other, options.d_model, dtype)
                except RuntimeError as error:
                    # causal_conv1d takes only widths whose strides are multiples of eight.
                    table.add_row(preset, str(dtype), name, "does not run", str(error)[:60])
                    agree &= name != "scan kernel"
                    continue
                agree &= max(differences) < limit
                table.add_row(preset, str(dtype), name, *(f"{difference:.1e}" for difference in differences))
    console.print(table)
    console.print("All within the tolerances." if agree else "NOT all within the tolerances.")
    return agree


def _layer(options: SSMOptions, scan: Literal["plain", "kernel"]) -> nn.Module:
    torch.manual_seed(0)
    return mamba_layer(replace(options, scan=scan)).cuda()


def _differences(plain: nn.Module, other: nn.Module, width: int, dtype: torch.dtype) -> tuple[float, float]:
    torch.manual_seed(1)
    u, weight = torch.randn(2, STEPS, width, device="cuda"), torch.randn(2, STEPS, width, device="cuda")
    outputs, gradients = [], []
    for layer in (plain, other):
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            y = layer(u).float()
        outputs.append(y.detach())
        named = dict(layer.named_parameters())
        gradients.append(torch.autograd.grad((y * weight).sum(), [named[name] for name in sorted(named)]))
    return _relative(*outputs), max(_relative(a, b) for a, b in zip(*gradients, strict=True))


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / ours.abs().max())


def _throughput(console: Console) -> None:
    table = Table(
        "scan", "pass", "visits", "visits / s", "steps / s", "GiB", title=f"base, {VISIT_STEPS:,} steps, bfloat16"
    )
    options = resolve(["model=base"]).model.ssm
    for scan in ("plain", "kernel"):
        encoder = FGS1Encoder(replace(options, scan=scan)).cuda()
        for visits in BATCHES:
            x = torch.randn(visits, VISIT_STEPS, 6, device="cuda")
            n_steps = torch.full((visits,), VISIT_STEPS, device="cuda")

            def forward(encoder: FGS1Encoder = encoder, x: Tensor = x, n_steps: Tensor = n_steps) -> Tensor:
                with torch.autocast("cuda", torch.bfloat16):
                    return encoder(x, n_steps).float().square().mean()

            def evaluate(forward: Callable[[], Tensor] = forward) -> None:
                with torch.no_grad():
                    forward()

            def train(forward: Callable[[], Tensor] = forward) -> None:
                forward().backward()

            for name, work in (("forward", evaluate), ("forward and backward", train)):
                seconds, gigabytes = _measured(work)
                rate = visits / seconds
                table.add_row(scan, name, str(visits), f"{rate:.2f}", f"{rate * VISIT_STEPS:.2e}", f"{gigabytes:.1f}")
    console.print(table)


def _measured(work: Callable[[], None]) -> tuple[float, float]:
    """Median seconds, and peak GiB."""
    work()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(REPEATS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[REPEATS // 2], torch.cuda.max_memory_allocated() / 2**30


if __name__ == "__main__":
    sys.exit(main())
