"""The compiled pass against the readable chain: the same light curves, whatever the frames hold."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from toy_exposure import AIRS, FGS1, box_transit, expose

from spectramind.calibration.kill_chain import calibrate_exposure
from spectramind.calibration.options import CalibrationOptions
from spectramind.types import Counts, RawExposure

PAIRS = {AIRS: 90, FGS1: 2500}
BINNED = CalibrationOptions(airs_bin_seconds=3600, fgs1_bin_seconds=600)


def damaged(raw: RawExposure, rng: np.random.Generator) -> RawExposure:
    """Cosmic rays everywhere (the first and the last read included), saturated samples, a saturated frame."""
    counts = raw.counts.frames()
    hits = tuple(rng.integers(0, size, 400) for size in counts.shape)
    counts[hits] = np.minimum(counts[hits].astype(int) + 9000, 65535)
    counts[[0, -1], 16, 10] = 40_000
    counts[tuple(rng.integers(0, size, 5) for size in counts.shape)] = 65535
    counts[30] = 65535
    return replace(raw, counts=Counts.from_frames(counts))


@pytest.fixture(scope="module", params=[AIRS, FGS1], ids=["AIRS", "FGS1"])
def raw(request) -> RawExposure:
    instrument = request.param
    relative = box_transit(PAIRS[instrument], 0.012)
    exposure = expose(instrument, PAIRS[instrument], 3, relative=relative, foreground=8.0)
    return damaged(exposure, np.random.default_rng(5))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"order": "dark_linearity"},
        {"correct_linearity": False, "subtract_dark": False, "divide_flat": False},
        {"hot_pixels": "keep", "weighting": "sum"},
        {"reject_cosmic_rays": False, "reject_outliers": False},
        {"jitter": "pca"},
        {"jitter": "keep", "subtract_foreground": False},
        {"reset_pairs": 7},
        {"airs_bin_seconds": 0, "fgs1_bin_seconds": 0},
    ],
    ids=lambda changes: ",".join(map(str, changes.values())) or "defaults",
)
def test_both_engines_give_the_same_light_curve(raw, changes):
    fused, fused_steps, fused_row = calibrate_exposure(raw, replace(BINNED, **changes))
    plain, plain_steps, plain_row = calibrate_exposure(raw, replace(BINNED, engine="plain", **changes))
    np.testing.assert_allclose(fused.flux, plain.flux, rtol=1e-9)
    np.testing.assert_allclose(fused.variance, plain.variance, rtol=1e-9)
    np.testing.assert_array_equal(fused.quality, plain.quality)
    for name, channel in plain.channels.items():
        np.testing.assert_allclose(fused.channels[name], channel, rtol=1e-6, atol=1e-7)
    assert fused_row == pytest.approx(plain_row, rel=1e-6, nan_ok=True)
    for (name, *one), (same_name, *other) in zip(map(astuple, fused_steps), map(astuple, plain_steps), strict=True):
        assert name == same_name
        assert one == pytest.approx(other, rel=1e-6)
