"""Foreground: diffuse light that fills all rows, constant in time, smooth in wavelength, not dimmed by the transit."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from spectramind.instruments import Instrument
from spectramind.simulation.stars import reference_levels
from spectramind.types import Floats

PIVOT_ELECTRONS = 50_000.0
"""Starlight per column at which `share` holds. The foreground goes with the square root of the reference star's light:
in real frames one outer row holds 0.05 % of a column of 100,000 electrons and 0.10 % of one of 20,000."""

FGS1_PIXELS_PER_ROW_SHARE = 64.0
"""FGS1 spreads the light of one row over this many pixels, which makes 1 to 2 electrons per pixel, as measured."""


def draw_foreground(rng: Generator, instrument: Instrument, share: float, scatter: float = 0.5) -> Floats:
    """Electrons per pixel and CDS pair by column: (columns,), or (1,) for FGS1.

    `share` is the median ratio of one row's foreground to the reference star's light in a bright column, `scatter` the
    standard deviation of its logarithm between visits; a random slope of +-30 % tilts it along the detector.
    """
    n = instrument.columns if instrument.dispersed else 1
    level = share * np.exp(rng.normal(0.0, scatter))
    tilt = 1.0 + rng.uniform(-0.3, 0.3) * (np.linspace(-1.0, 1.0, n) if n > 1 else np.zeros(1))
    per_row: Floats = (
        level * tilt * np.sqrt(PIVOT_ELECTRONS * reference_levels(instrument, np.arange(n, dtype=np.float64)))
    )
    return per_row if instrument.dispersed else per_row / FGS1_PIXELS_PER_ROW_SHARE
