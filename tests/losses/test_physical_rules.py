"""Rules from molecules, transit and star, against numbers worked out by other means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy_spectra import N_BINS, WAVELENGTH_UM, WINDOWS, noisy, ppm, predicted, small_axis

from spectramind.losses.options import (
    AsymmetryOptions,
    MolecularCoherenceOptions,
    RatioEnvelopesOptions,
    RuleFamily,
)
from spectramind.losses.physical_rules import (
    asymmetry,
    gravitational_lensing,
    molecular_coherence,
    molecular_fingerprint,
    photonic_alignment,
    radiative_transfer,
    ratio_envelopes,
)
from spectramind.losses.spectral_axis import band_template

WINDOW_BINS = sum(last - first + 1 for group in WINDOWS.by_molecule.values() for first, last in group)
MOLECULES = ("h2o", "co2", "ch4")


def at_bins(values: dict[int, float]) -> np.ndarray:
    """One planet at depth 0.01 with `values` in ppm at some bins."""
    spectrum = np.zeros(N_BINS)
    spectrum[list(values)] = list(values.values())
    return ppm(*spectrum)


def fitted(spectrum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes (planets, 3) of the templates and misfit (planets, AIRS bins), by ordinary least squares."""
    log_wavelength = np.log(WAVELENGTH_UM[1:])
    columns = [np.ones(N_BINS - 1), log_wavelength, *(band_template(m, WAVELENGTH_UM)[1:] for m in MOLECULES)]
    coefficients = np.linalg.lstsq(np.column_stack(columns), spectrum[:, 1:].T, rcond=None)[0]
    return coefficients[2:].T, spectrum[:, 1:] - (np.column_stack(columns) @ coefficients).T


def test_templates_peak_where_the_bands_are() -> None:
    wavelength = np.array([0.7, *np.linspace(1.95, 3.9, 400)])
    peak = {molecule: wavelength[np.argmax(band_template(molecule, wavelength))] for molecule in MOLECULES}
    assert peak["h2o"] == pytest.approx(2.66, abs=0.01)
    assert peak["ch4"] == pytest.approx(3.31, abs=0.01)
    for molecule in MOLECULES:
        template = band_template(molecule, wavelength)
        assert template[0] == 0.0
        assert template.max() == 1.0


def test_asymmetry_by_hand() -> None:
    """CO2 window, bins 1..5: 40 ppm at bin 1 alone is odd by 20 at bins 1 and 5, in units of 20 ppm."""
    penalty = asymmetry(predicted(at_bins({1: 40.0})), small_axis(), AsymmetryOptions())
    expected = np.zeros(N_BINS)
    expected[[1, 5]] = 1 / WINDOW_BINS
    np.testing.assert_allclose(penalty.numpy(), [expected], rtol=1e-9, atol=1e-20)


def test_symmetric_corrections_cost_nothing() -> None:
    symmetric = {1: 10, 2: 30, 3: 50, 4: 30, 5: 10, 9: 70, 10: 70}
    analytic = noisy(1)
    penalty = asymmetry(predicted(analytic + at_bins(symmetric) - 0.01, analytic), small_axis(), AsymmetryOptions())
    assert float(penalty.sum()) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("use_templates", [True, False])
def test_coherence_is_the_misfit_of_a_least_squares_fit(use_templates: bool, normalize: bool) -> None:
    spectrum = noisy()
    by_hand = np.zeros((3, N_BINS))
    for molecule, group in WINDOWS.by_molecule.items():
        for first, last in group:
            window = slice(first, last + 1)
            x = np.arange(last - first + 1.0)
            shape = band_template(molecule, WAVELENGTH_UM)[window] if use_templates else x**2
            columns = np.column_stack([np.ones_like(x), x, shape])
            values = spectrum[:, window]
            misfit = values - (columns @ np.linalg.lstsq(columns, values.T, rcond=None)[0]).T
            unit = np.sqrt(25e-6**2 + values.var(axis=1, keepdims=True)) if normalize else 25e-6
            by_hand[:, window] = (misfit / unit) ** 2 / WINDOW_BINS
    options = MolecularCoherenceOptions(scale_ppm=25.0, use_templates=use_templates, normalize_within_window=normalize)
    penalty = molecular_coherence(predicted(spectrum), small_axis(), options)
    np.testing.assert_allclose(penalty.numpy(), by_hand, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("molecule", MOLECULES)
def test_coherence_on_the_template_is_zero(molecule: str) -> None:
    """Window by window any level, slope and amplitude of the molecule's own template."""
    spectrum = np.full((1, N_BINS), 0.01)
    for k, (first, last) in enumerate(WINDOWS.by_molecule[molecule]):
        window = slice(first, last + 1)
        template = band_template(molecule, WAVELENGTH_UM)[window]
        spectrum[0, window] += 1e-6 * (50 * k + 5 * np.arange(template.size) + (k + 1) * 300 * template)
    options = MolecularCoherenceOptions(normalize_within_window=False)
    assert float(molecular_coherence(predicted(spectrum), small_axis(), options).sum()) == pytest.approx(0, abs=1e-12)


def test_normalised_coherence_does_not_depend_on_the_amplitude_of_strong_bands() -> None:
    options = MolecularCoherenceOptions(scale_ppm=0.01)
    weak = predicted(noisy())
    strong = predicted(0.01 + 10 * (noisy() - 0.01))
    np.testing.assert_allclose(
        molecular_coherence(strong, small_axis(), options).numpy(),
        molecular_coherence(weak, small_axis(), options).numpy(),
        rtol=1e-6,
    )


def contrasts(h2o: float, co2: float, ch4: float) -> np.ndarray:
    spectrum = np.zeros(N_BINS)
    for molecule, value in (("h2o", h2o), ("co2", co2), ("ch4", ch4)):
        for first, last in WINDOWS.by_molecule[molecule]:
            spectrum[first : last + 1] = value
    return ppm(*spectrum)


@pytest.mark.parametrize(
    ("h2o", "co2", "ch4", "too_far_co2", "too_far_ch4"),
    [
        (100, 100, 100, 0, 0),
        (100, 10, 20, 0, 0),
        (100, 250, 300, 0, 0),
        (100, 400, 100, 150, 0),
        (100, 5, 350, 5, 50),
        (100, -70, 20, 10, 0),
        (0, 40, 0, 40, 0),
        (-50, 0, 60, 0, 60),
    ],
)
def test_ratio_envelopes_by_hand(h2o: float, co2: float, ch4: float, too_far_co2: float, too_far_ch4: float) -> None:
    """Bounds 0.2..3 for CH4 and 0.1..2.5 for CO2 times the contrast of H2O; unit 100 ppm."""
    penalty = ratio_envelopes(predicted(contrasts(h2o, co2, ch4)), small_axis(), RatioEnvelopesOptions())
    expected = np.zeros(N_BINS)
    expected[1:6] = 0.5 * (too_far_co2 / 100) ** 2 / 5
    expected[[14, 15, 16, 17, 18, 20, 21, 22, 23, 24]] = 0.5 * (too_far_ch4 / 100) ** 2 / 10
    np.testing.assert_allclose(penalty.numpy(), [expected], rtol=1e-8, atol=1e-15)


def test_fingerprint_is_the_negative_part_of_the_fitted_bands() -> None:
    spectrum = noisy()
    amplitudes, _ = fitted(spectrum)
    assert (amplitudes < 0).any()
    assert (amplitudes > 0).any()
    by_hand = np.zeros((3, N_BINS))
    for k, molecule in enumerate(MOLECULES):
        bands = np.minimum(amplitudes[:, k, None], 0) * band_template(molecule, WAVELENGTH_UM)[1:]
        by_hand[:, 1:] += (bands / 100e-6) ** 2 / (N_BINS - 1)
    penalty = molecular_fingerprint(predicted(spectrum), small_axis(), RuleFamily())
    np.testing.assert_allclose(penalty.numpy(), by_hand, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("molecule", MOLECULES)
def test_fingerprint_knows_bands_from_their_mirror_image(molecule: str) -> None:
    band = 200e-6 * band_template(molecule, WAVELENGTH_UM)[None]
    by_hand = (4 * band[0, 1:] ** 2 / 200e-6**2).mean()
    absorbing = molecular_fingerprint(predicted(0.01 + band), small_axis(), RuleFamily())
    emitting = molecular_fingerprint(predicted(0.01 - band), small_axis(), RuleFamily())
    assert float(absorbing.sum()) == pytest.approx(0.0, abs=1e-15)
    assert float(emitting.sum()) == pytest.approx(by_hand, rel=1e-8)


def test_radiative_transfer_is_the_misfit_of_the_atmosphere() -> None:
    spectrum = noisy()
    _, misfit = fitted(spectrum)
    penalty = radiative_transfer(predicted(spectrum), small_axis(), RuleFamily(scale_ppm=50.0))
    np.testing.assert_allclose(penalty[:, 1:].numpy(), (misfit / 50e-6) ** 2 / (N_BINS - 1), rtol=1e-7, atol=1e-12)
    haze_and_bands = 0.02 - 3e-4 * np.log(WAVELENGTH_UM)
    for molecule, amplitude in zip(MOLECULES, (1e-4, 5e-5, 2e-4), strict=True):
        haze_and_bands = haze_and_bands + amplitude * band_template(molecule, WAVELENGTH_UM)
    ideal = radiative_transfer(predicted(haze_and_bands[None]), small_axis(), RuleFamily())
    assert float(ideal.sum()) == pytest.approx(0.0, abs=1e-12)


def test_lensing_by_hand() -> None:
    """All bins 300 ppm too deep with a limit of 100 ppm: (3 - 1)^2, in equal parts."""
    analytic = noisy(1)
    penalty = gravitational_lensing(predicted(analytic + 300e-6, analytic), small_axis(), RuleFamily())
    np.testing.assert_allclose(penalty.numpy(), np.full((1, N_BINS), 4 / N_BINS), rtol=1e-8)
    hard = gravitational_lensing(predicted(analytic - 300e-6, analytic), small_axis(), RuleFamily(mode="hard"))
    assert float(hard.sum()) == pytest.approx(2.0, rel=1e-8)


def test_lensing_fires_on_the_achromatic_bump_only() -> None:
    analytic = noisy(1)
    chromatic = analytic + 1e-6 * np.where(np.arange(N_BINS) % 5 == 2, 5000.0, 0.0)
    within = analytic + 90e-6
    for spectrum in (chromatic, within):
        assert float(gravitational_lensing(predicted(spectrum, analytic), small_axis(), RuleFamily()).sum()) == 0.0
    assert (chromatic - analytic).mean() > 9 * 100e-6


def test_photonic_alignment_by_hand() -> None:
    """FGS1 1250 ppm above AIRS with a limit of 500 ppm: (2.5 - 1)^2, at the FGS1 bin."""
    options = RuleFamily(name="photonic_alignment", scale_ppm=500.0)
    apart = at_bins({0: 1250.0})
    expected = np.zeros((1, N_BINS))
    expected[0, 0] = 2.25
    for sign in (1, -1):
        penalty = photonic_alignment(predicted(0.01 + sign * (apart - 0.01)), small_axis(), options)
        np.testing.assert_allclose(penalty.numpy(), expected, rtol=1e-9)
    near = photonic_alignment(predicted(at_bins({0: 480.0})), small_axis(), replace(options, mode="hard"))
    assert float(near.sum()) == 0.0
