"""The test of two populations keeps its level, and sees what differs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import energy_distance, kstest

from spectramind.errors import InputError
from spectramind.uncertainty.exchangeability import _energy_p_value, compare_populations

COLUMNS = ("Rs", "Ts", "scatter", "drift")


def test_p_values_of_equal_populations_are_uniform() -> None:
    rng = np.random.default_rng(0)
    p_values = [
        compare_populations(
            rng.lognormal(size=(30, 4)), rng.lognormal(size=(20, 4)), COLUMNS, seed=n, permutations=99
        ).p_value
        for n in range(150)
    ]
    assert kstest(p_values, "uniform").pvalue > 1e-3


def test_a_shifted_column_is_found_and_named() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((150, 4)), rng.standard_normal((120, 4))
    second[:, 2] = np.exp(second[:, 2] + 1.0)
    first[:, 2] = np.exp(first[:, 2])
    found = compare_populations(first, second, COLUMNS)
    assert found.p_value == found.least_p_value == 1e-3
    assert next(iter(found.column_p_values)) == "scatter"
    assert found.column_p_values["scatter"] < 1e-3 < min(found.column_p_values[name] for name in ("Rs", "Ts", "drift"))


def test_units_outliers_and_missing_numbers_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.standard_normal((40, 4)), rng.standard_normal((40, 4))
    plain = compare_populations(first, second, COLUMNS)
    scale = np.array([1e9, 1e-9, 1.0, 1.0])
    assert compare_populations(first * scale, second * scale, COLUMNS).p_value == plain.p_value
    first[0, 0], second[0, 1] = np.nan, np.inf
    constant = np.ones((40, 1))
    found = compare_populations(np.hstack([first, constant]), np.hstack([second, constant]), (*COLUMNS, "e"))
    assert found.columns == COLUMNS
    assert found.p_value > 0.01


def test_the_statistic_orders_relabellings_as_scipy_does() -> None:
    rng = np.random.default_rng(3)
    values, is_first = rng.standard_normal((9, 1)), np.arange(9) < 4
    permuted = np.random.default_rng(7)
    labels = [is_first, *(permuted.permutation(is_first) for _ in range(200))]
    distances = np.array([energy_distance(values[label, 0], values[~label, 0]) for label in labels])
    expected = np.mean(distances >= distances[0] * (1 - 1e-9))
    assert _energy_p_value(values, is_first, np.random.default_rng(7), 200) == pytest.approx(expected)


def test_few_planets_say_how_little_they_can_show() -> None:
    found = compare_populations(np.arange(8.0).reshape(2, 4), 100 + np.arange(8.0).reshape(2, 4), COLUMNS)
    assert found.least_p_value == pytest.approx(2 / 6)
    with pytest.raises(InputError):
        compare_populations(np.zeros((1, 4)), np.zeros((5, 4)), COLUMNS)
