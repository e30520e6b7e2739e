"""The predictor from likelihoods to out-of-fold spectra."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from spectramind.errors import InputError
from spectramind.instruments import N_WAVELENGTHS
from spectramind.models.analytic import IMPLAUSIBLE, UNDETECTED, AnalyticModel, train_analytic
from spectramind.models.options import AnalyticOptions
from spectramind.transit.fit import PlanetFit
from spectramind.transit.joint import SpectrumLikelihood
from spectramind.transit.nuisances import Layout
from spectramind.transit.options import TransitOptions
from spectramind.types import Star

TRANSIT = TransitOptions(drift_degree=1, drift_colours=1, limb_darkening_colours=1)
OPTIONS = AnalyticOptions(folds=3, learning_iterations=30, shape_components=4, kernel_widths=(1.0, 0.5))
WAVELENGTHS = np.r_[0.7, np.linspace(1.95, 3.9, 282)]
NOISE = 2e-4


def planet(seed: int, response: float = 1.0) -> tuple[PlanetFit, Star, np.ndarray]:
    """A likelihood of a random smooth spectrum, coupled to its nuisances."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 1, N_WAVELENGTHS)
    truth = rng.uniform(0.008, 0.02) + rng.uniform(3e-5, 1e-4) * np.sin(3 * x + rng.uniform(0, 6))
    layout = Layout.of(TRANSIT, 1)
    nuisances = 1e-3 * rng.normal(size=layout.size)
    slopes = rng.normal(size=(N_WAVELENGTHS, layout.size)) * 0.05
    seen = response * truth + slopes @ nuisances * 0.01 + NOISE * rng.normal(size=N_WAVELENGTHS)
    inverse = np.full(N_WAVELENGTHS, NOISE**-2.0)
    coupling = inverse[:, None] * slopes * 0.01
    nuisance = (slopes * 0.01).T @ coupling + np.eye(layout.size) * 1e4
    score = np.r_[inverse * seen, coupling.T @ seen + 1e4 * nuisances]
    likelihood = SpectrumLikelihood(np.diag(inverse), coupling, nuisance, score)
    host = Star(str(seed), 1.0, 1.0, float(rng.uniform(5000, 6500)), 1.0, 0.0, 4.0, 10.0, 88.0)
    return PlanetFit(host.planet_id, layout, likelihood, np.zeros(N_WAVELENGTHS + layout.size), {}), host, truth


def train(seeds: range, response: float = 1.0):
    fits, stars, truth = zip(*(planet(seed, response) for seed in seeds), strict=True)
    labels = np.stack(truth)
    return train_analytic(fits, stars, labels, WAVELENGTHS, OPTIONS, TRANSIT, seed=1), fits, stars, labels


def test_held_out_planets_are_predicted_with_honest_sigmas():
    (_, held_out), _, _, labels = train(range(40))
    error = held_out.mean - labels
    assert np.sqrt(np.mean(error**2)) < 0.4 * NOISE
    assert np.std(error / held_out.sigma) == pytest.approx(1.0, abs=0.25)


def test_no_label_reaches_its_own_out_of_fold_prediction():
    fits, stars, truth = zip(*(planet(seed) for seed in range(24)), strict=True)
    labels = np.stack(truth)
    _, before = train_analytic(fits, stars, labels, WAVELENGTHS, OPTIONS, TRANSIT, seed=1)
    changed = labels.copy()
    changed[5] *= 1.2
    one_choice = replace(OPTIONS, kernel_widths=(1.0,), drifts=("product",))
    _, after = train_analytic(fits, stars, changed, WAVELENGTHS, one_choice, TRANSIT, seed=1)
    _, same = train_analytic(fits, stars, labels, WAVELENGTHS, one_choice, TRANSIT, seed=1)
    np.testing.assert_array_equal(after.mean[5], same.mean[5])
    assert not np.array_equal(after.mean, same.mean)
    assert before.mean.shape == labels.shape


def test_a_common_dilution_is_learned_and_undone():
    (model, held_out), _, _, labels = train(range(40), response=0.995)
    np.testing.assert_allclose(model.response, 0.995, atol=1.5e-3)
    bias = (held_out.mean - labels).mean()
    assert abs(bias) < 0.2 * 0.005 * labels.mean()


def test_saved_models_predict_the_same(tmp_path):
    (model, _), fits, stars, _ = train(range(16))
    model.save(tmp_path)
    back = AnalyticModel.load(tmp_path).predict(fits[:3], stars[:3])
    ours = model.predict(fits[:3], stars[:3])
    np.testing.assert_array_equal(back.mean, ours.mean)
    np.testing.assert_array_equal(back.sigma, ours.sigma)


def test_prediction_does_not_depend_on_the_company():
    (model, _), fits, stars, _ = train(range(16))
    together = model.predict(fits[:4], stars[:4])
    alone = model.predict(fits[2:3], stars[2:3])
    np.testing.assert_array_equal(together.mean[2], alone.mean[0])


def test_flagged_and_implausible_fits_fall_back_to_a_wide_prior():
    (model, _), fits, stars, labels = train(range(16))
    flagged = replace(fits[0], flags=("no transit in the window",))
    likelihood = fits[1].likelihood
    negative = replace(fits[1], likelihood=replace(likelihood, score=-20 * likelihood.score))
    result = model.predict([flagged, negative], [stars[0], stars[1]])
    assert result.flags == (("no transit in the window",), (IMPLAUSIBLE,))
    assert (result.mean > 0).all()
    assert (result.sigma > labels.std()).all()


def test_a_depth_within_its_noise_is_no_transit():
    """The planet keeps the wide prior."""
    (model, _), fits, stars, labels = train(range(16))
    level = labels[0].mean()

    def result(depth_sigmas):
        noise = level / depth_sigmas * np.sqrt(N_WAVELENGTHS)
        precision = np.eye(N_WAVELENGTHS) / noise**2
        size = fits[0].layout.size
        nuisance = 1e8 * np.eye(size)
        score = np.r_[precision @ labels[0], np.zeros(size)]
        likelihood = SpectrumLikelihood(precision, np.zeros((N_WAVELENGTHS, size)), nuisance, score)
        return model.predict([replace(fits[0], likelihood=likelihood)], stars[:1])

    assert result(1.0).flags == ((UNDETECTED,),)
    assert result(1.0).sigma.mean() > labels.mean(axis=1).std()
    assert result(100.0).flags == ((),)


def test_too_few_planets_are_refused():
    with pytest.raises(InputError, match="at least 8"):
        train(range(5))


def test_a_fit_with_other_nuisances_is_refused():
    (model, _), fits, stars, _ = train(range(16))
    other = replace(fits[0], layout=replace(fits[0].layout, drift_degree=3))
    with pytest.raises(InputError, match="same transit settings"):
        model.predict([other], stars[:1])


def test_a_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"model\.json"):
        AnalyticModel.load(tmp_path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    train(range(16))[0][0].save(folder)
    return folder


MORE_DRIFT = (("mean (4,)", "(8,)"), ("covariance (4, 4)", "(8, 8)"))


def drop_basis(arrays, header):
    del arrays["spectrum.basis"]


def more_drift(arrays, header):
    header["layout"]["drift_degree"] = 3


def fewer_bins(arrays, header):
    arrays["response"] = arrays["response"][:282]


def from_elsewhere(arrays, header):
    arrays["encoder.weight"] = np.ones((8, 8))


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        (drop_basis, {"spectrum.basis missing"}),
        (
            more_drift,
            {"nuisance.visit_mean (4,) instead of (8,)", "nuisance.visit_covariance (4, 4) instead of (8, 8)"},
        ),
        (fewer_bins, {"response (282,) instead of (283,)"}),
        (from_elsewhere, {"encoder.weight (8, 8) instead of nothing"}),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_with_its_keys(change, keys, checkpoint, tmp_path):
    arrays = load_file(checkpoint / "model.safetensors")
    header = json.loads((checkpoint / "model.json").read_text())
    change(arrays, header)
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text(json.dumps(header))
    with pytest.raises(InputError, match=r"model\.safetensors: expected the arrays of a model") as refused:
        AnalyticModel.load(tmp_path)
    assert all(key in refused.value.found for key in keys)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_checkpoint_is_refused(name, share, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=name):
        AnalyticModel.load(tmp_path)
