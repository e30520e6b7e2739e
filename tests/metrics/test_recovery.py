"""Injection-recovery statistics against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from spectramind.errors import InputError
from spectramind.metrics.options import RecoveryOptions
from spectramind.metrics.recovery import recovered
from spectramind.types import Floats

TRUTH = np.full((4, 283), 0.01)
OPTIONS = RecoveryOptions(bias_fgs1_ppm=10.0, bias_airs_ppm=10.0, z_factor=1.5)


def errors(fgs1_ppm: list[float], airs_ppm: list[float]) -> Floats:
    """Predictions whose bins miss by these errors, one per planet."""
    error = np.repeat(np.array(airs_ppm)[:, None], 283, axis=1)
    error[:, 0] = fgs1_ppm
    return TRUTH + 1e-6 * error


def test_mean_error_and_its_standard_error_over_planets() -> None:
    # FGS1: mean 20, squared deviations 100, 100, 100, 100 over 3, so the standard error is sqrt(400 / 3 / 4) = 5.7735.
    # Its z² are 1, 9, 1, 9 at sigma 10: mean 5, standard error sqrt(64 / 3 / 4) = 2.3094.
    # AIRS: mean 0; z² are 1 for each.
    mean = errors([10, 30, 10, 30], [-10, 10, -10, 10])
    fgs1, airs = recovered(mean, np.full_like(mean, 1e-5), TRUTH, OPTIONS)
    assert (fgs1.instrument, airs.instrument, fgs1.planets) == ("FGS1", "AIRS-CH0", 4)
    assert (fgs1.bias_ppm, fgs1.bias_error_ppm) == pytest.approx((20.0, 5.7735), rel=1e-4)
    assert (fgs1.z_rms, fgs1.z_low, fgs1.z_high) == pytest.approx((5**0.5, 0.38119**0.5, 9.61880**0.5), rel=1e-3)
    assert (airs.bias_ppm, airs.z_rms, airs.z_low, airs.z_high) == pytest.approx((0.0, 1.0, 1.0, 1.0), abs=1e-6)
    # 20 is within 10 + 2 * 5.77.
    assert fgs1.problems == airs.problems == ()


def test_a_biased_predictor_is_refused_and_named() -> None:
    # Standard error 1.1547 in AIRS: 14 exceeds 10 + 2.31; FGS1 at 12 does not.
    mean = errors([10, 14, 10, 14], [12, 16, 12, 16])
    fgs1, airs = recovered(mean, np.full_like(mean, 13e-6), TRUTH, OPTIONS)
    assert fgs1.problems == ()
    assert airs.problems == ("AIRS-CH0: mean error +14.0 ± 1.2 ppm, limit 10 ppm",)


@pytest.mark.parametrize(("sigma_ppm", "word"), [(4.0, "too small"), (20.0, "too large")])
def test_sigmas_far_from_the_errors_are_refused(sigma_ppm: float, word: str) -> None:
    mean = errors([-8, 8, -8, 8], [-8, 8, -8, 8])
    for row in recovered(mean, np.full_like(mean, 1e-6 * sigma_ppm), TRUTH, OPTIONS):
        assert len(row.problems) == 1
        assert f"sigmas {word}" in row.problems[0]


def test_two_planets_prove_nothing() -> None:
    with pytest.raises(InputError, match="at least 3 planets"):
        recovered(TRUTH[:2], TRUTH[:2], TRUTH[:2], OPTIONS)
