"""Which bins masked auto-encoding hides."""

from __future__ import annotations

import torch
from torch import Tensor

from spectramind.training.options import MaskOptions


def hidden_bins(options: MaskOptions, snr_db: Tensor, molecules: Tensor) -> Tensor:
    """Bins to hide (P, N), the rounded share `options.ratio` of each planet's.

    `snr_db` (P, N) ratio of depth to sigma in decibels; `molecules` (N,) sum of 2^m over the molecules of a bin. The
    bins with the lowest order are taken: by kind, that is chance, a run that starts anywhere and may wrap around, the
    same bins always, chance among those above the floor before the others, and chance among the bins of one molecule,
    drawn for each planet, before the others.
    """
    planets, bins = snr_db.shape
    device = snr_db.device
    chance = torch.rand(planets, bins, device=device)
    if options.kind == "random":
        order = chance
    elif options.kind == "block":
        start = torch.randint(bins, (planets, 1), device=device)
        order = ((torch.arange(bins, device=device) - start) % bins).float()
    elif options.kind == "fixed":
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(bins, generator=generator).to(device).float().expand(planets, bins)
    elif options.kind == "snr_aware":
        order = chance + (snr_db < options.snr_floor_db)
    else:
        count = int(molecules.max()).bit_length()
        drawn = torch.randint(max(count, 1), (planets, 1), device=device)
        order = chance + ((molecules >> drawn) & 1 == 0)
    chosen = order.argsort(dim=1)[:, : round(options.ratio * bins)]
    return torch.zeros(planets, bins, dtype=torch.bool, device=device).scatter(1, chosen, True)
