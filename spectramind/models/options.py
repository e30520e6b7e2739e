"""Knobs of the analytic predictor."""

from __future__ import annotations

from dataclasses import dataclass

from spectramind.options import option


@dataclass(frozen=True)
class AnalyticOptions:
    """What the predictor learns from planets with known spectra."""

    folds: int = option(5, "Folds of planets for out-of-fold predictions.", ge=2, le=100)
    learning_iterations: int = option(
        150, "Expectation-maximisation steps that learn geometry, limb-darkening and drift scatters.", ge=1, le=5000
    )
    shape_components: int = option(12, "Principal components of the spectral shapes.", ge=1, le=60)
    kernel_widths: tuple[float, ...] = option(
        (1.0, 0.7, 0.5, 0.35),
        "Widths tried for the kernel about each training shape, 1 is one Gaussian; held-out planets decide.",
        gt=0,
        le=1,
    )
    amplitude_steps: int = option(21, "Grid points of the amplitude of a planet's spectral shape.", ge=3, le=200)
