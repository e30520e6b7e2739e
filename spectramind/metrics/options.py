"""Knobs of the injection-recovery test."""

from __future__ import annotations

from dataclasses import dataclass

from spectramind.options import option


@dataclass(frozen=True)
class RecoveryOptions:
    """Which planets are injected, and how far what comes back may be from them."""

    planets: int = option(8, "Planets that the simulator injects.", ge=3, le=1000)
    thin: int = option(40, "Thinning of their frames, as simulation.thin.", ge=1, le=200)
    seed: int = option(
        271828, "Seed of their simulation; another one than that of simulated training data.", ge=0, le=2**32 - 1
    )
    bias_fgs1_ppm: float = option(60.0, "Largest mean error of the FGS1 depth in ppm.", gt=0.0, le=1e5)
    bias_airs_ppm: float = option(40.0, "Largest mean error of the AIRS-CH0 depths in ppm.", gt=0.0, le=1e5)
    z_factor: float = option(
        1.5, "How far the root mean square of errors / sigma may be from 1, as a factor up or down.", gt=1.0, le=100.0
    )
