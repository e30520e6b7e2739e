"""The suites and the report, on tables made by hand."""

from __future__ import annotations

import base64
import re

import numpy as np
import pandas as pd
import pytest

from flows.calibrate import allowed_losses
from flows.figures import figures
from flows.quality import Finding, SuiteResult, load_suite, stop_on_failure, suite_names, validate
from flows.report import data_docs_pages, data_quality_page
from flows.tables import with_z_scores
from spectramind.calibration.summary import QUANTITIES
from spectramind.errors import InputError


def light_curves(**changes: object) -> pd.DataFrame:
    """Three good light curves, with columns replaced."""
    columns: dict[str, object] = {
        "planet_id": ["10", "11", "12"],
        "split": "train",
        "visit": 0,
        "instrument": "FGS1",
        "cube": "0" * 64,
        "electrons_per_pair": 2e5,
        "n_pairs": 3000.0,
        "scatter_ppm": 300.0,
        "noise_over_photon": 1.1,
        "noise_over_propagated": 1.0,
        "out_of_transit_ppm": 320.0,
        "drift_ppm": 100.0,
        "transit_depth_ppm": 10_000.0,
        "transit_snr": 50.0,
        "bad_pixel_share": 0.01,
        "saturated_share": 0.0,
        "unusable_pairs_share": 0.0,
        "outlier_share": 1e-5,
        "foreground_electrons": 100.0,
        "foreground_share": 5e-4,
        "centroid_motion_px": 0.1,
    }
    return with_z_scores(pd.DataFrame({**columns, **changes}))


def many_light_curves(planets: int, **changes: object) -> pd.DataFrame:
    """Light curves of both instruments that differ as those of one data set do."""
    rng = np.random.default_rng(0)
    tables = []
    for instrument in ("FGS1", "AIRS-CH0"):
        ids = [str(1000 + number) for number in range(planets)]
        table = light_curves(planet_id=ids, instrument=instrument)
        for name in set(QUANTITIES) - {"n_pairs"}:
            table[name] *= np.exp(0.1 * rng.normal(size=planets))
        tables.append(table)
    return with_z_scores(pd.concat(tables, ignore_index=True).assign(**changes))


def test_good_light_curves_meet_every_expectation() -> None:
    result = validate("calibrated_visits", light_curves())
    assert result.success
    assert result.n_rows == 3
    assert len(result.findings) == len(load_suite("calibrated_visits")["expectations"])


def test_a_dark_light_curve_sets_its_visit_aside_and_no_other() -> None:
    result = validate("calibrated_visits", light_curves(electrons_per_pair=[2e5, -3.0, np.nan]))
    assert set(result.quarantined) == {("11", "train", "0", "FGS1"), ("12", "train", "0", "FGS1")}
    reason = result.quarantined["11", "train", "0", "FGS1"]
    assert reason.startswith("expected electrons_per_pair > 0, found -3. No starlight is left")


@pytest.mark.parametrize(
    ("name", "value"), [("scatter_ppm", 2e5), ("bad_pixel_share", 0.6), ("unusable_pairs_share", 0.6)]
)
def test_a_light_curve_that_cannot_be_trusted_is_set_aside(name: str, value: float) -> None:
    result = validate("calibrated_visits", light_curves(**{name: [0.01, value, 0.01]}))
    assert set(result.quarantined) == {("11", "train", "0", "FGS1")}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise_over_propagated", 3.0),
        ("noise_over_photon", 9.0),
        ("drift_ppm", 3e5),
        ("transit_snr", 3.0),
        ("bad_pixel_share", 0.4),
        ("saturated_share", 0.2),
        ("unusable_pairs_share", 0.1),
        ("outlier_share", 0.05),
        ("foreground_share", 0.8),
        ("centroid_motion_px", 2.0),
    ],
)
def test_an_odd_light_curve_is_flagged_and_stays_in(name: str, value: float) -> None:
    usual = float(light_curves()[name].iloc[0])
    result = validate("calibrated_visits", light_curves(**{name: [usual, value, usual]}))
    assert [(f.column, f.on_failure, f.rows, f.values) for f in result.failures] == [
        (name, "flag", (("11", "train", "0", "FGS1"),), (f"{value:.4g}",))
    ]
    assert result.quarantined == {}


def test_limits_of_one_instrument_do_not_judge_the_other() -> None:
    outliers = {"outlier_share": [1e-3, 1e-3, 1e-5], "instrument": ["FGS1", "AIRS-CH0", "FGS1"]}
    (finding,) = validate("calibrated_visits", light_curves(**outliers)).failures
    assert finding.subject == "outlier_share of FGS1"
    assert finding.rows == (("10", "train", "0", "FGS1"),)
    assert finding.learned


def test_the_planet_that_stands_out_of_its_data_set_is_named() -> None:
    table = many_light_curves(40)
    assert validate("calibrated_visits", table).success
    table.loc[3, "drift_ppm"] *= 8.0
    table.loc[45, ["electrons_per_pair", "outlier_share"]] *= [0.2, 30.0]
    result = validate("calibrated_visits", with_z_scores(table))
    assert {(f.column, f.on_failure, f.rows) for f in result.failures} == {
        ("z_drift_ppm", "flag", (("1003", "train", "0", "FGS1"),)),
        ("z_electrons_per_pair", "flag", (("1005", "train", "0", "AIRS-CH0"),)),
        ("z_outlier_share", "flag", (("1005", "train", "0", "AIRS-CH0"),)),
    }


def test_what_is_alike_stands_out_only_by_what_matters() -> None:
    alike = many_light_curves(20, bad_pixel_share=0.01, saturated_share=0.0)
    alike.loc[0, ["bad_pixel_share", "saturated_share"]] = [0.012, 5e-4]
    assert validate("calibrated_visits", with_z_scores(alike)).success
    alike.loc[0, ["bad_pixel_share", "saturated_share"]] = [0.02, 5e-3]
    unlike = {finding.column for finding in validate("calibrated_visits", with_z_scores(alike)).failures}
    assert unlike == {"z_bad_pixel_share", "z_saturated_share"}


def test_none_stands_out_of_a_few() -> None:
    assert light_curves(drift_ppm=[1.0, 1e4, 1.0])["z_drift_ppm"].isna().all()


@pytest.mark.parametrize(
    ("total", "limit", "allowed"),
    [(1, 0.01, 0), (2, 0.01, 1), (10, 0.01, 1), (199, 0.01, 1), (200, 0.01, 2), (1100, 0.01, 11), (50, 0.0, 1),
     (100, 0.29, 29), (10, 1.0, 9)],
)  # fmt: skip
def test_more_than_the_limit_of_train_planets_may_not_be_lost(total: int, limit: float, allowed: int) -> None:
    assert allowed_losses("train", total, limit) == allowed
    assert allowed_losses("test", total, limit) == total - 1


def test_a_missing_column_fails_for_every_row() -> None:
    result = validate("calibrated_visits", light_curves().drop(columns="transit_snr"))
    (finding,) = result.failures
    assert finding.observed == "no column transit_snr"
    assert len(finding.rows) == 3


def test_a_verdict_survives_json() -> None:
    result = validate("calibrated_visits", light_curves(drift_ppm=[0.0, 2e5, 0.0]))
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
        assert (
            {"on_failure", "meaning", "cure"} <= set(expectation["meta"]) <= {"on_failure", "meaning", "cure", "limits"}
        )
        assert expectation["meta"]["on_failure"] in {"stop", "quarantine", "flag"}
        assert expectation["meta"]["meaning"].endswith(".")
        assert expectation["meta"]["cure"].endswith(".")


def test_the_report_escapes_names_and_needs_no_network() -> None:
    attack = "<script>alert(1)</script>"
    table = light_curves(planet_id=["10", attack, "12"])
    finding = Finding(
        "between", "drift_ppm", "≤ 1", "2", False, "flag", ((attack, "train", "0", "FGS1"),), "Odd.", "Look.", (attack,)
    )
    flag = {"planet_id": attack, "split": "train", "visit": "0", "instrument": "FGS1", "what": attack}
    document = {
        "data_revision": "0" * 64,
        "lineage": {"data set": "0" * 64, attack: "1" * 64},
        "planets": {"train": 3},
        "quarantined": [{"split": "train", "planet_id": attack, "visit": 0, "reason": attack}],
        "flagged": [{**flag, "suite": "calibrated_visits", "expected": "≤ 1", "found": attack}],
        "notes": {attack: [attack]},
    }
    result = SuiteResult("calibrated_visits", "Calibrated visits", 3, ("planet_id",), (finding,))
    step = {"mean_in": 1.0, "mean_out": 1.0, "std_in": 1.0, "std_out": 1.0, "changed_fraction": 0.5}
    scatter = {"scatter_ppm_in": 150.0, "scatter_ppm_out": 120.0}
    steps = pd.DataFrame({"instrument": ["FGS1"], "step": [attack], **step, **scatter})

    def page() -> str:
        verdicts = {"calibrated_visits": result}
        return data_quality_page(attack, document, verdicts, steps, table, figures(table, result))

    assert "<script" not in page()
    assert "&lt;script&gt;" in page()
    assert "http" not in page()
    assert "-30.0" in page()  # the step's effect in ppm
    assert page() == page()


def test_the_report_of_a_whole_data_set_is_small_and_names_what_is_wrong_at_the_top() -> None:
    table = many_light_curves(1100)
    table.loc[7, "drift_ppm"] = 3e5
    table = with_z_scores(table)
    result = validate("calibrated_visits", table)
    pictures = figures(table, result)
    drift = next(histogram for histogram in pictures.histograms if histogram.quantity == QUANTITIES["drift_ppm"])
    assert drift.outside == (("FGS1", "1007", "0", 3e5),)
    drawing = base64.b64decode(drift.image.partition(",")[2]).decode()
    assert "1007" in drawing
    document = {"data_revision": "0" * 64, "lineage": {}, "planets": {"train": 1100}, "quarantined": [], "notes": {}}
    steps = pd.DataFrame(columns=["instrument", "step"])
    verdicts = {"calibrated_visits": result}
    page = data_quality_page("set", {**document, "flagged": []}, verdicts, steps, table, pictures)
    assert len(page) < 5e6
    top = page[: page.index("Light curves in numbers")]
    for text in ("Drift (ppm) of FGS1", "The star&#39;s level changes more", "Look at the light curve", "3e+05"):
        assert text in top


def test_data_docs_show_every_expectation_escape_names_and_need_no_network() -> None:
    attack = "<script>alert(1)</script>"
    table = light_curves(planet_id=["10", attack, "12"], drift_ppm=[0.0, 2e5, 0.0])
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
