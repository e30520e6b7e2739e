"""The suites and the report, on tables made by hand."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from flows.quality import Finding, SuiteResult, load_suite, stop_on_failure, suite_names, validate
from flows.report import data_docs_pages, data_quality_page, noise_figure
from spectramind.errors import InputError


def light_curves(**changes: object) -> pd.DataFrame:
    """Three good light curves, with columns replaced."""
    columns: dict[str, object] = {
        "planet_id": ["10", "11", "12"],
        "split": "train",
        "visit": 0,
        "instrument": "FGS1",
        "electrons_per_pair": 2e5,
        "noise_over_propagated": 1.0,
        "noise_over_photon": 1.1,
        "scatter_ppm": 300.0,
        "drift": 1e-4,
        "bad_pixel_share": 0.01,
        "saturated_share": 0.0,
        "unusable_pairs_share": 0.0,
        "outlier_share": 1e-4,
        "centroid_motion_px": 0.1,
    }
    return pd.DataFrame({**columns, **changes})


def test_good_light_curves_meet_every_expectation() -> None:
    result = validate("calibrated_visits", light_curves())
    assert result.success
    assert result.n_rows == 3
    assert len(result.findings) == len(load_suite("calibrated_visits")["expectations"])


def test_a_dark_light_curve_sets_its_visit_aside_and_no_other() -> None:
    result = validate("calibrated_visits", light_curves(electrons_per_pair=[2e5, -3.0, np.nan]))
    assert set(result.quarantined) == {("11", "train", "0", "FGS1"), ("12", "train", "0", "FGS1")}
    assert "No starlight" in result.quarantined["11", "train", "0", "FGS1"]


def test_an_odd_light_curve_is_reported_only() -> None:
    result = validate("calibrated_visits", light_curves(drift=[0.0, 0.2, 0.0]))
    assert [(f.column, f.on_failure, f.rows) for f in result.failures] == [
        ("drift", "report", (("11", "train", "0", "FGS1"),))
    ]
    assert result.quarantined == {}


def test_a_missing_column_fails_for_every_row() -> None:
    result = validate("calibrated_visits", light_curves().drop(columns="drift"))
    (finding,) = result.failures
    assert finding.observed == "no column drift"
    assert len(finding.rows) == 3


def test_a_verdict_survives_json() -> None:
    result = validate("calibrated_visits", light_curves(drift=[0.0, 0.2, 0.0]))
    assert SuiteResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("column", ["missing_values", "smallest_depth", "smallest_sigma"])
def test_an_impossible_prediction_stops_the_run(column: str) -> None:
    good = {
        "planet_id": ["10", "11"],
        "missing_values": 0,
        "smallest_depth": 0.01,
        "largest_depth": 0.02,
        "spectrum_range": 1e-3,
        "smallest_sigma": 1e-4,
        "largest_sigma": 1e-3,
        "fallback": False,
    }
    assert validate("predictions", pd.DataFrame(good)).success
    bad = pd.DataFrame({**good, column: [good[column], -1]})
    with pytest.raises(InputError, match=rf"{column} .*\(11\)") as stopped:
        stop_on_failure([validate("predictions", bad)], "predictions")
    assert stopped.value.exit_code == 2


@pytest.mark.parametrize("name", suite_names())
def test_every_expectation_says_what_it_means_and_what_to_do(name: str) -> None:
    suite = load_suite(name)
    assert suite["name"] == name
    for expectation in suite["expectations"]:
        assert set(expectation["meta"]) == {"on_failure", "meaning", "cure"}
        assert expectation["meta"]["on_failure"] in {"stop", "quarantine", "report"}
        assert expectation["meta"]["meaning"].endswith(".")
        assert expectation["meta"]["cure"].endswith(".")


def test_the_report_escapes_names_and_needs_no_network() -> None:
    attack = "<script>alert(1)</script>"
    table = light_curves(planet_id=["10", attack, "12"])
    finding = Finding(
        "between", "drift", "≤ 1", "2", False, "report", ((attack, "train", "0", "FGS1"),), "Odd.", "Look."
    )
    document = {
        "data_revision": "0" * 64,
        "planets": {"train": 3},
        "quarantined": [{"split": "train", "planet_id": attack, "visit": 0, "reason": attack}],
        "notes": {attack: [attack]},
    }
    result = SuiteResult("calibrated_visits", "Calibrated visits", 3, ("planet_id",), (finding,))
    steps = pd.DataFrame(
        {"instrument": ["FGS1"], "step": [attack], "mean_in": 1.0, "mean_out": 1.0, "std_in": 1.0, "std_out": 1.0,
         "changed_fraction": 0.5}
    )  # fmt: skip
    page = data_quality_page(attack, document, {"calibrated_visits": result}, steps, table, noise_figure(table))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page
    assert page == data_quality_page(attack, document, {"calibrated_visits": result}, steps, table, noise_figure(table))


def test_data_docs_show_every_expectation_escape_names_and_need_no_network() -> None:
    attack = "<script>alert(1)</script>"
    table = light_curves(planet_id=["10", attack, "12"], drift=[0.0, 0.2, 0.0])
    verdicts = {"calibrated_visits": validate("calibrated_visits", table), "empty": validate("fits", table[:0])}
    pages = data_docs_pages(verdicts)
    assert set(pages) == set(verdicts)
    for page in pages.values():
        assert not re.search(r"<script|<link|<img|https?:|url\(|@import|src=", page)
        links = re.findall(r'href="([^"]*)"', page)
        assert {link for link in links if not link.startswith("#")} <= {
            "../data_quality.html",
            *(f"{name}.html" for name in verdicts),
        }
        targets = {f"#{name}" for name in re.findall(r'id="?([\w-]+)', page)}
        assert {link for link in links if link.startswith("#")} <= targets
    page = pages["calibrated_visits"]
    assert "&lt;script&gt;" in page
    for expectation in load_suite("calibrated_visits")["expectations"]:
        assert expectation["kwargs"].get("column", "") in page
