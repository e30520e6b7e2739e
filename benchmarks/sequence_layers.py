"""How the time of sequence layers grows with length: python benchmarks/sequence_layers.py [LONGEST_TRANSFORMER]

Forward and backward pass of one layer of width 64 on one sequence, CPU time on one thread, least of three. Printed are
the ratio of the time at a length to that at half of it (2 is linear, 4 quadratic), and the time relative to Mamba-2 at
the same length. The transformer is left out beyond LONGEST_TRANSFORMER (default 11,250) steps: it takes minutes.

The process starts anew with the allocator settings of the project's own workers: by default the C library returns
arrays of more than 32 MB to the system, and zeroing the next one's pages costs as much as the layer itself.
"""

from __future__ import annotations

import os
import sys
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from spectramind.cubes.parallel import KEEP_MEMORY
from spectramind.models.fgs1_encoder import MambaLayer, TransformerLayer
from spectramind.models.options import SSMOptions

WIDTH, STATES = 64, 16
LENGTHS = (1_125, 2_250, 5_625, 11_250, 33_750, 67_500)
REPEATS = 3


class Gru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, x: Tensor, backwards: Tensor, n_steps: Tensor) -> Tensor:
        return x + self.gru(x)[0]


def main(longest_transformer: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = SSMOptions(d_model=WIDTH, d_state=STATES, head_dim=WIDTH, bidirectional=False, dropout=0.0)
    layers = {
        "Mamba-2 (SSD)": MambaLayer(options),
        "GRU": Gru(),
        "transformer": TransformerLayer(SSMOptions(kind="transformer", d_model=WIDTH, head_dim=16, dropout=0.0)),
    }
    seconds = {
        name: [
            None if name == "transformer" and steps > longest_transformer else _seconds(layer, steps)
            for steps in LENGTHS
        ]
        for name, layer in layers.items()
    }
    table = Table("layer", *(f"{steps:,}" for steps in LENGTHS), title="Forward and backward, one sequence, width 64")
    halves = dict(zip(LENGTHS[1::2], LENGTHS[::2], strict=True))
    for name, times in seconds.items():
        at = dict(zip(LENGTHS, times, strict=True))
        table.add_row(f"{name}: time / half the length", *(_ratio(at[n], at.get(halves.get(n, 0))) for n in LENGTHS))
    for name, times in seconds.items():
        relative = (_ratio(t, mine) for t, mine in zip(times, seconds["Mamba-2 (SSD)"], strict=True))
        table.add_row(f"{name}: time / Mamba-2", *relative)
    Console(width=132).print(table)


def _seconds(layer: nn.Module, steps: int) -> float:
    n_steps = torch.tensor([steps])
    backwards = torch.arange(steps).flip(0)[None]
    times = []
    for _ in range(REPEATS):
        x = torch.randn(1, steps, WIDTH, requires_grad=True)
        start = time.process_time()
        layer(x, backwards, n_steps).square().sum().backward()
        times.append(time.process_time() - start)
    return min(times)


def _ratio(time: float | None, reference: float | None) -> str:
    return "" if time is None or reference is None else f"{time / reference:.2f}"


if __name__ == "__main__":
    allocator = {name: str(size) for name, size in KEEP_MEMORY.items()}
    if not allocator.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | allocator)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 11_250)
