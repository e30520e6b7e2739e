"""The whole chain on exposures from an independent forward model."""

from dataclasses import replace

import numpy as np
import pytest
from toy_exposure import AIRS, FGS1, box_transit, expose, fitted_depth

from spectramind.calibration.kill_chain import calibrate_exposure, calibrate_visit
from spectramind.calibration.options import CalibrationOptions
from spectramind.errors import QuarantineError
from spectramind.types import Counts, Quality, RawExposure

EVERY_PAIR = CalibrationOptions(airs_bin_seconds=0, fgs1_bin_seconds=0)
THINNED = 20
STEPS = (
    "analog_to_digital",
    "nonlinearity",
    "dark_current",
    "correlated_double_sampling",
    "flat_field",
    "bad_pixels",
    "cosmic_rays",
    "outliers",
    "jitter",
    "foreground",
    "time_binning",
)


def with_counts(raw: RawExposure, change) -> RawExposure:
    counts = raw.counts.frames()
    change(counts)
    return replace(raw, counts=Counts.from_frames(counts))


@pytest.fixture(scope="module")
def quiet():
    """Four exposures' worth of a constant star: 200 AIRS and 4,000 FGS1 pairs."""
    return {AIRS: expose(AIRS, 200, 1, foreground=10.0), FGS1: expose(FGS1, 4000, 1, foreground=3.0)}


@pytest.mark.parametrize("instrument", [AIRS, FGS1])
@pytest.mark.parametrize("weighting", ["optimal", "sum"])
def test_propagated_variance_is_that_of_many_realisations(quiet, instrument, weighting):
    """Each pair of a constant star is one realisation."""
    curve, _, _ = calibrate_exposure(quiet[instrument], replace(EVERY_PAIR, weighting=weighting, jitter="keep"))
    observed = curve.flux.var(axis=0, ddof=1)
    ratio = observed / curve.variance.mean(axis=0)
    assert ratio.mean() == pytest.approx(1.0, abs=0.05)


def test_propagated_variance_holds_in_bins_with_repaired_pixels_and_beside_them(quiet):
    """A tenth of the trace's pixels is dead."""
    raw = quiet[AIRS]
    dead = raw.frames.dead.copy()
    dead[13:18] |= np.random.default_rng(3).random((5, dead.shape[1])) < 0.1
    curve, _, _ = calibrate_exposure(replace(raw, frames=replace(raw.frames, dead=dead)), EVERY_PAIR)
    ratio = curve.flux.var(axis=0, ddof=1) / curve.variance.mean(axis=0)
    repaired = (curve.quality[0] & Quality.REPAIRED_PIXEL) > 0
    beside = np.convolve(repaired, [1, 0, 1], "same").astype(bool) & ~repaired
    assert min(repaired.sum(), beside.sum()) > 60
    assert ratio[repaired].mean() == pytest.approx(1.0, abs=0.04)
    assert ratio[beside].mean() == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize("instrument", [AIRS, FGS1])
def test_binned_variance_is_that_of_the_bins(quiet, instrument):
    pairs = 10
    seconds = pairs * 7.5 * 3600 / (len(quiet[instrument].counts) // 2)
    options = replace(EVERY_PAIR, airs_bin_seconds=seconds, fgs1_bin_seconds=seconds)
    curve, _, _ = calibrate_exposure(quiet[instrument], options)
    assert (curve.n_pairs == pairs).all()
    squares = ((curve.flux - curve.flux.mean(axis=0)) ** 2 / curve.variance).sum()
    chi2 = squares / (curve.flux.size - curve.flux.shape[1])
    assert chi2 == pytest.approx(1.0, abs=0.05 if instrument is AIRS else 0.2)


@pytest.mark.parametrize("instrument", [AIRS, FGS1])
@pytest.mark.parametrize("order", ["linearity_dark", "dark_linearity"])
def test_levels_come_out_without_noise(instrument, order):
    """The absolute level, foreground removed, from frames whose only error is rounding to counts."""
    pairs = 12 if instrument is AIRS else 60
    raw = expose(instrument, pairs, 1, noise=False, foreground=0.0, wings=0.0)
    curve, _, _ = calibrate_exposure(raw, replace(EVERY_PAIR, order=order))
    truth = 221e3 if instrument is FGS1 else np.interp(np.arange(320, 38, -1), [39, 320], [4e3, 90e3])
    assert np.median(np.abs(curve.flux.mean(axis=0) / truth - 1)) < 0.01


@pytest.mark.parametrize("instrument", [AIRS, FGS1])
@pytest.mark.parametrize("foreground", [0.0, 30.0])
def test_depth_is_unbiased_with_foreground_wings_and_every_detector_effect(instrument, foreground):
    """On a very bright star the relative depth comes back to 1e-3, with wings and foreground of percents."""
    pairs, depth = 60 if instrument is AIRS else 600, 0.0125
    relative = box_transit(pairs, depth)
    raw = expose(instrument, pairs, 2, relative=relative, foreground=foreground, wings=0.05, brightness=2000.0)
    curve, _, _ = calibrate_exposure(raw, EVERY_PAIR)
    found = fitted_depth(curve.flux.sum(axis=1, keepdims=True), (1 - relative) / depth)[0]
    assert found == pytest.approx(depth, rel=1e-3)


@pytest.mark.parametrize("instrument", [AIRS, FGS1])
def test_cosmic_rays_are_rejected_and_bias_nothing(quiet, instrument):
    rng = np.random.default_rng(4)
    raw = quiet[instrument]
    hits = rng.integers(0, raw.counts.shape[0] // 2, 60) * 2 + 1, rng.integers(0, 32, 60), rng.integers(0, 32, 60)
    hits = (*hits[:2], hits[2] + 61) if instrument is AIRS else hits

    def strike(counts):
        counts[hits] = np.minimum(counts[hits] + 15_000, 65_000)

    clean, _, _ = calibrate_exposure(raw, EVERY_PAIR)
    struck, _, summary = calibrate_exposure(with_counts(raw, strike), EVERY_PAIR)
    sigma = np.sqrt(clean.variance)
    assert np.abs((struck.flux.mean(axis=0) - clean.flux.mean(axis=0)) / sigma.mean(axis=0)).max() < 0.1
    assert (struck.quality & Quality.OUTLIER_REMOVED).any()
    assert summary["outlier_share"] > 0


def test_a_dead_wavelength_is_interpolated_with_a_wider_sigma(quiet):
    raw = quiet[AIRS]
    dead = raw.frames.dead.copy()
    dead[:, 161] = True
    curve, _, _ = calibrate_exposure(replace(raw, frames=replace(raw.frames, dead=dead)), EVERY_PAIR)
    column = 281 - 161
    near = [column - 2, column + 2]
    assert (curve.quality[:, column] & Quality.REPAIRED_PIXEL).all()
    assert np.sqrt(curve.variance[0, column] / curve.variance[0, near].mean()) > 1.9
    assert curve.flux[:, column].mean() == pytest.approx(curve.flux[:, near].mean(), rel=0.02)


def test_saturated_frames_do_not_count(quiet):
    raw = with_counts(quiet[FGS1], lambda counts: counts.__setitem__(slice(100, 104), 65535))
    curve, _, summary = calibrate_exposure(raw, CalibrationOptions(fgs1_bin_seconds=7.5 * 3600 / 200))
    assert curve.n_pairs[2] == 18
    assert curve.quality[2, 0] & (Quality.SATURATED | Quality.FEW_SAMPLES) == Quality.SATURATED | Quality.FEW_SAMPLES
    assert curve.flux[2, 0] == pytest.approx(np.median(curve.flux), rel=3e-3)
    assert summary["unusable_pairs_share"] == pytest.approx(0.0005)
    single, _, _ = calibrate_exposure(raw, EVERY_PAIR)
    assert np.isnan(single.flux[50, 0])
    assert np.isinf(single.variance[50, 0])
    assert single.quality[50, 0] & Quality.UNUSABLE


@pytest.mark.parametrize("where", [(slice(None, None, 2),), (slice(None), slice(0, 3))], ids=["frames", "pixels"])
def test_mostly_saturated_exposures_are_refused(quiet, where):
    raw = with_counts(quiet[FGS1], lambda counts: counts.__setitem__(where, 65535))
    with pytest.raises(QuarantineError, match="toy: expected at most 20% of samples at full scale"):
        calibrate_exposure(raw, EVERY_PAIR)


def test_a_pixel_that_is_always_saturated_is_repaired(quiet):
    raw = with_counts(quiet[FGS1], lambda counts: counts.__setitem__((slice(None), 15, 16), 65535))
    curve, _, summary = calibrate_exposure(raw, EVERY_PAIR)
    assert summary["bad_pixel_share"] > quiet[FGS1].frames.dead.mean()
    assert (curve.quality & Quality.REPAIRED_PIXEL).all()
    ratio = curve.flux.var(axis=0, ddof=1) / curve.variance.mean(axis=0)
    assert ratio[0] == pytest.approx(1.0, abs=0.1)


def test_reads_in_the_other_order_give_the_same_curve(quiet):
    raw = quiet[AIRS]
    pairs = raw.counts.frames().reshape(-1, 2, 32, 282)[:, ::-1].reshape(raw.counts.shape)
    integration = raw.axis.integration_s.reshape(-1, 2)[:, ::-1].ravel()
    swapped = replace(raw, counts=Counts.from_frames(pairs), axis=replace(raw.axis, integration_s=integration))
    one, _, _ = calibrate_exposure(raw, EVERY_PAIR)
    other, _, _ = calibrate_exposure(swapped, EVERY_PAIR)
    np.testing.assert_allclose(one.flux, other.flux, rtol=1e-6)


def test_pairs_after_the_reset_can_be_cut(quiet):
    raw = with_counts(quiet[AIRS], lambda counts: counts.__setitem__(slice(0, 10), counts[:10] // 2))
    curve, _, _ = calibrate_exposure(raw, replace(EVERY_PAIR, reset_pairs=5))
    whole, _, _ = calibrate_exposure(quiet[AIRS], EVERY_PAIR)
    np.testing.assert_array_equal(curve.time_h, whole.time_h[5:])
    assert curve.flux.mean() == pytest.approx(whole.flux.mean(), rel=1e-3)
    with pytest.raises(QuarantineError, match="expected at least 5 CDS pairs, found 200 less the 196"):
        calibrate_exposure(raw, replace(EVERY_PAIR, reset_pairs=196))


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"correct_linearity": False}, "nonlinearity"),
        ({"subtract_dark": False}, "dark_current"),
        ({"divide_flat": False}, "flat_field"),
        ({"reject_outliers": False}, "outliers"),
        ({"jitter": "keep"}, "jitter"),
        ({"subtract_foreground": False}, "foreground"),
    ],
)
def test_a_step_that_is_switched_off_is_not_reported_and_changes_the_curve(quiet, changes, missing):
    curve, steps, _ = calibrate_exposure(quiet[FGS1], replace(EVERY_PAIR, **changes))
    whole, _, _ = calibrate_exposure(quiet[FGS1], EVERY_PAIR)
    assert [step.step for step in steps] == [name for name in STEPS if name != missing]
    assert missing == "outliers" or not np.array_equal(curve.flux, whole.flux)


def test_scatter_before_and_after_a_step_is_that_of_the_white_light_curve(quiet):
    pairs = 16
    _, steps, _ = calibrate_exposure(quiet[FGS1], CalibrationOptions(fgs1_bin_seconds=pairs * 7.5 * 3600 / 4000))
    binning = next(step for step in steps if step.step == "time_binning")
    photons = 1e6 / np.sqrt(221e3)
    assert photons < binning.scatter_ppm_in < 1.3 * photons
    assert binning.scatter_ppm_out == pytest.approx(binning.scatter_ppm_in / np.sqrt(pairs), rel=0.15)


def test_every_step_reports_and_a_visit_holds_both_instruments(quiet):
    visit = calibrate_visit(lambda instrument: quiet[instrument], "1", 0, EVERY_PAIR)
    assert set(visit.curves) == {"FGS1", "AIRS-CH0"}
    assert tuple(step.step for step in visit.steps["FGS1"]) == STEPS
    unmeasured = [(name, key) for name, row in visit.summary.items() for key, value in row.items() if np.isnan(value)]
    assert unmeasured == []
    assert set(visit.curves["AIRS-CH0"].channels) == {"centroid_y", "jitter_y"}
    curve = visit.curves["FGS1"]
    assert set(curve.channels) == {"centroid_x", "centroid_y", "jitter_x", "jitter_y"}
    assert curve.channels["centroid_x"].mean() == pytest.approx(15.7, abs=0.1)
    assert visit.curves["AIRS-CH0"].flux.shape == (200, 282)


def test_the_same_exposure_gives_the_same_bytes(quiet):
    one, _, _ = calibrate_exposure(quiet[FGS1], CalibrationOptions())
    other, _, _ = calibrate_exposure(quiet[FGS1], CalibrationOptions())
    assert one.flux.tobytes() == other.flux.tobytes()
    assert one.variance.tobytes() == other.variance.tobytes()


def test_an_exposure_without_light_is_refused(quiet):
    rng = np.random.default_rng(0)
    noise = rng.integers(430, 444, quiet[FGS1].counts.shape)
    dark = with_counts(quiet[FGS1], lambda counts: counts.__setitem__(slice(None), noise))
    with pytest.raises(QuarantineError, match="light"):
        calibrate_exposure(dark, EVERY_PAIR)
