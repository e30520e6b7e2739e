"""Images: where on the detector the light of one electron of signal falls, and how that moves with pointing.

An image is kept as its Taylor series to second order in the displacement (dx, dy). All terms but the first sum to zero
over the detector, apart from light that leaves it: jitter moves light between pixels and hardly changes the sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from spectramind.instruments import Instrument
from spectramind.types import Floats

DIFFERENCE_STEP_PX = 0.1

FGS1_CENTRE = (15.4, 15.4)
FGS1_COMPONENTS = (
    (0.206, -0.72, -0.75, 0.58, 0.59),
    (0.039, -0.85, 1.51, 0.45, 0.64),
    (0.392, 0.89, 0.02, 0.70, 0.73),
    (0.204, 0.32, 1.54, 1.32, 1.67),
    (0.105, -2.10, -1.94, 3.75, 0.89),
    (0.054, 0.0, 0.0, 3.5, 3.2),
)
"""Weight, offset along columns and rows and widths along both (pixels) of the Gaussians that make the point-spread
function: a fit to the mean of real frames, whose light is lopsided and steep."""

AIRS_TRACE_ROW = 15.56
AIRS_COMPONENTS = (
    ((0.71, 0.63), (1.37, 0.65)),
    ((0.14, 0.23), (4.1, 1.5)),
    ((0.15, 0.14), (5.0, 5.0)),
)
"""Weights and widths (pixels) at column 0 and at the last column, linear between, of the Gaussians that make the
cross-dispersion profile: a core, a halo and a wing, fitted to real frames."""


@dataclass(frozen=True)
class Placement:
    """Where the light falls in one planet's visits: column and row of the centre, relative width."""

    column: float
    row: float
    width: float


def draw_placement(rng: Generator, instrument: Instrument) -> Placement:
    """A centre within about a tenth of a pixel of the nominal one."""
    column, row = (0.0, AIRS_TRACE_ROW) if instrument.dispersed else FGS1_CENTRE
    shift = rng.normal(0.0, 0.1, size=2)
    return Placement(float(column + shift[0]), float(row + shift[1]), float(np.exp(rng.normal(0.0, 0.02))))


def image_series(instrument: Instrument, placement: Placement, levels: Floats) -> Floats:
    """Taylor terms (6, R, C): image, d/dx, d/dy, d2/dx2, d2/dxdy, d2/dy2.

    For FGS1 the image sums to 1 over the detector; for AIRS-CH0 to 1 over each column. A displacement along dispersion
    shifts the spectrum `levels` (C,) over the columns, which then differ by its gradient.
    """

    def image(dx: float, dy: float) -> Floats:
        if instrument.dispersed:
            return _trace(instrument, placement, levels, dx, dy)
        return _point_spread(instrument, placement, dx, dy)

    h = DIFFERENCE_STEP_PX
    centre, right, left, up, down = image(0, 0), image(h, 0), image(-h, 0), image(0, h), image(0, -h)
    mixed = image(h, h) - image(h, -h) - image(-h, h) + image(-h, -h)
    return np.stack(
        [
            centre,
            (right - left) / (2 * h),
            (up - down) / (2 * h),
            (right - 2 * centre + left) / h**2,
            mixed / (4 * h**2),
            (up - 2 * centre + down) / h**2,
        ]
    )


def _gaussian_shares(n: int, centre: float, width: float | Floats) -> Floats:
    """Integral of a unit Gaussian over each of `n` pixels, the pixels along the first axis."""
    from scipy.special import ndtr

    edges = (np.arange(n + 1) - 0.5 - centre).reshape(-1, *([1] * np.ndim(width)))
    return np.asarray(np.diff(ndtr(edges / width), axis=0))


def _point_spread(instrument: Instrument, placement: Placement, dx: float, dy: float) -> Floats:
    image = np.zeros((instrument.rows, instrument.columns))
    for weight, offset_x, offset_y, width_x, width_y in FGS1_COMPONENTS:
        centre_x, centre_y = placement.column + dx + offset_x, placement.row + dy + offset_y
        along_x = _gaussian_shares(instrument.columns, centre_x, width_x * placement.width)
        along_y = _gaussian_shares(instrument.rows, centre_y, width_y * placement.width)
        image += weight * np.outer(along_y, along_x)
    return image


def _trace(instrument: Instrument, placement: Placement, levels: Floats, dx: float, dy: float) -> Floats:
    column = np.arange(instrument.columns, dtype=np.float64)
    centre = placement.row + dy

    def along(ends: tuple[float, float]) -> Floats:
        return np.linspace(ends[0], ends[1], instrument.columns)

    profile = np.zeros((instrument.rows, instrument.columns))
    for weights, widths in AIRS_COMPONENTS:
        profile += along(weights) * _gaussian_shares(instrument.rows, centre, placement.width * along(widths))
    profile = profile / profile.sum(axis=0)
    spectrum = np.exp(np.interp(column - dx, column, np.log(levels)))
    return np.asarray(profile * spectrum / levels)
