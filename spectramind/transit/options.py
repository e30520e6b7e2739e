"""Knobs of the transit fit."""

from __future__ import annotations

from dataclasses import dataclass

from spectramind.options import option


@dataclass(frozen=True)
class TransitOptions:
    """How light curves become a likelihood of the spectrum.

    The scatters are what a first fit assumes; the model then learns from planets with known spectra how far the star
    table and the limb-darkening law are to be trusted.
    """

    drift_degree: int = option(6, "Highest Chebyshev degree in time of the drift f(t).", ge=0, le=10)
    drift_colours: int = option(
        4, "Legendre polynomials in log wavelength that carry the drift across AIRS, g(w).", ge=1, le=8
    )
    drift_scale: float = option(1e-3, "Relative drift that the first fit expects.", gt=0, le=0.1)
    limb_darkening_colours: int = option(
        3, "Legendre polynomials in log wavelength for each AIRS limb-darkening coefficient.", ge=1, le=6
    )
    limb_darkening_scatter: float = option(
        0.1, "Scatter of each limb-darkening coefficient about the first guess.", gt=0, le=1
    )
    axis_scatter: float = option(
        0.03, "Relative scatter of the true semi-major axis about the star table's, before it is learned.", gt=0, le=1
    )
    impact_scatter: float = option(
        0.05, "Scatter of the true impact parameter about the star table's, before it is learned.", gt=0, le=1
    )
    clock_scatter_h: float = option(
        1.0, "Scatter in hours of FGS1's mid-transit about that of AIRS, before it is learned.", gt=0, le=10
    )
    outlier_sigma: float = option(
        5.0, "Time bins further from the fit than this many sigma lose their weight.", ge=3, le=100
    )
    starts: int = option(3, "Mid-transits from which the fit is started; the best end point wins.", ge=1, le=20)
    iterations: int = option(12, "Most Gauss-Newton steps of one fit.", ge=1, le=100)
