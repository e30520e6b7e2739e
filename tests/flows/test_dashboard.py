"""The report: of a real run and in a real browser, small for many planets, open to own panels, and plain about what is
not there."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
from browser import opened
from conftest import copy_linked
from typer.testing import CliRunner

from flows import panels
from flows.charts import Chart, Series
from flows.cli import app
from flows.dashboard import MANIFEST, SCHEMA, STEPS, SUMMARY, draw_panel, draw_panels, packed_planets, page
from flows.panels import Panel, calibration, ledger, overlay, register, score_heatmap, scores
from flows.run_data import ATTRIBUTIONS, PREDICTIONS, RunData, read_run
from flows.run_directory import CHECKPOINT, OUT_OF_FOLD, RunDirectory
from settings.resolve import resolve
from spectramind.provenance.digests import file_digest
from spectramind.simulation.dataset import SimulatedDataset
from spectramind.transit.fit import WhiteCurve

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "diagnostics.md"


@pytest.fixture(scope="module")
def finished(simulated: SimulatedDataset, prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without a network; its last train planet has no fit."""
    from flows.end_to_end import spectramind_v50

    out = tmp_path_factory.mktemp("finished")
    arguments = (
        *(f"data.root={simulated.root}", f"data.truth={simulated.truth / 'test.csv'}", f"outputs.dir={out}"),
        *(f"outputs.store={tmp_path_factory.mktemp('store')}", "dask.scheduler=synchronous", "tracking.enable=false"),
        *("model.learning_iterations=5", "model.kernel_widths=[1.0]"),
    )
    settings = resolve(arguments, None, {})
    with RunDirectory.create(settings, "test") as directory:
        spectramind_v50(settings, directory)
    return out


@pytest.fixture(scope="module")
def report(finished: Path) -> Path:
    """Made by the command; with attributions of the first test planet, which another command writes."""
    data = read_run(finished)
    first = data.planet_ids[data.rows("test")[0]]
    rows = [(first, wl, source, (-1.0) ** wl * source) for wl in (3, 4) for source in range(1, 284)]
    (finished / ATTRIBUTIONS).parent.mkdir()
    table = pd.DataFrame(rows, columns=["planet_id", "wl", "source_wl", "attribution_ppm"])
    table.to_parquet(finished / ATTRIBUTIONS)
    return diagnose(finished)


def diagnose(run: Path, *arguments: str) -> Path:
    done = CliRunner().invoke(app, ["diagnose", "dashboard", str(run), *arguments])
    assert done.exit_code == 0, done.output
    return Path(done.stdout.removeprefix("report").strip())


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_summary_and_manifest_of_a_run(finished: Path, report: Path, simulated: SimulatedDataset) -> None:
    assert report == finished / "diagnostics" / "diagnostic_report_v1.html"
    summary, manifest = read(report.parent / SUMMARY), read(report.parent / MANIFEST)
    jsonschema.validate(summary, read(SCHEMA))
    assert set(summary["panels"]) == {
        "scores",
        "calibration",
        "ledger",
        "noise",
        "score_heatmap",
        "residuals",
        "latents",
        "certificate",
    }
    assert summary["planets"] == {"train": len(simulated.train_ids) - 1, "test": len(simulated.test_ids)}
    assert summary["panels"]["scores"]["numbers"]["test"]["all"]["score"] == pytest.approx(
        read(finished / "metrics.json")["test"]["official"]
    )
    assert not [line for line in summary["missing"] if line.startswith("panel ")]
    assert manifest["dataset"] == simulated.root.name
    for name, told in manifest["files"].items():
        assert told["sha256"] == file_digest(report.parent / name)
    figures = [figure for panel in summary["panels"].values() for figure in panel["figures"]]
    for figure in figures:
        assert (report.parent / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert read(report.parent / f"{figure}.json")["name"] == figure
    assert {SUMMARY, report.name, *(f"{figure}.{kind}" for figure in figures for kind in ("png", "json"))} < set(
        manifest["files"]
    )


@pytest.mark.slow
def test_a_second_report_leaves_the_first(report: Path, tmp_path: Path) -> None:
    (tmp_path / "diagnostic_report_v3.html").write_text("mine")
    assert diagnose(report.parents[1], "--outdir", str(tmp_path), "--no-figures").name == "diagnostic_report_v4.html"
    assert (tmp_path / "diagnostic_report_v3.html").read_text() == "mine"
    assert not list(tmp_path.glob("*.png"))
    assert "diagnostic_report_v4.html" in read(tmp_path / MANIFEST)["files"]


@pytest.mark.slow
def test_the_page_draws_any_planet_and_asks_for_nothing(report: Path, tmp_path: Path) -> None:
    test = [row for row, split in enumerate(read_run(report.parents[1]).splits) if split == "test"]
    ids = read_run(report.parents[1]).planet_ids
    drawn = "document.body.dataset.planet === '{}'".format
    title = "document.querySelector('#spectrum .gtitle').textContent"
    with opened(report.resolve().as_uri(), tmp_path) as browser:
        browser.until("document.body?.dataset.ready === 'yes'")
        assert browser.value("document.body.dataset.planet") == ids[0]
        assert browser.value("document.querySelectorAll('#drawn .chart').length") == 3  # spectrum, FGS1, AIRS
        assert not browser.value("'yaxis2' in document.getElementById('spectrum')._fullLayout")
        browser.value(f"pick.value = {test[0]}; pick.dispatchEvent(new Event('change'))")
        browser.until(drawn(ids[test[0]]))
        assert browser.value(title) == f"Spectrum of planet {ids[test[0]]}"
        moved = browser.value("Array.from(document.getElementById('spectrum').data[0].y)")
        np.testing.assert_allclose(moved, np.arange(1, 284), rtol=1e-3)  # the attributions in ppm
        browser.value("document.getElementById('next').click()")
        browser.until(drawn(ids[test[1]]))
        for button in ("previous", "previous"):
            browser.value(f"document.getElementById('{button}').click()")
        browser.until(drawn(ids[test[0] - 1]))
        node = "document.getElementById('chart-gll_heatmap_test')"
        browser.value(f"{node}.scrollIntoView({{ block: 'center' }})")
        browser.until(f"{node}.dataset.drawn")
        planet = browser.value(
            f"data.planets[{node}.querySelector('.nsewdrag') && "
            "data.panels.find(p => p.name === 'score_heatmap').charts[1].heatmap.planets[1]].id"
        )
        box = browser.value(
            f"(b => [b.x + b.width / 2, b.y + b.height / 2])({node}.querySelector('.nsewdrag').getBoundingClientRect())"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            browser.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
        browser.until(drawn(planet))
        every = "[...document.querySelectorAll('#panels .chart')]"
        for place in range(browser.value(f"{every}.length")):
            browser.value(f"{every}[{place}].scrollIntoView()")
            browser.until(f"{every}[{place}].dataset.drawn")
        assert browser.troubles() == []
        assert browser.requests() == [report.resolve().as_uri()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["umap", "tsne"])
def test_projections_have_pages_of_their_own_that_name_the_planets(report: Path, name: str, tmp_path: Path) -> None:
    page, plots = report.parent.resolve() / f"{name}.html", "[...document.querySelectorAll('.plotly-graph-div')]"
    with opened(page.as_uri(), tmp_path) as browser:
        browser.until(f"document.readyState === 'complete' && {plots}.length === 2")
        browser.until(f"{plots}.every(plot => plot._fullLayout)")
        kinds = browser.value(f"{plots}.map(plot => plot.data.map(trace => trace.type))")
        named = browser.value(f"{plots}.map(plot => plot.data.flatMap(trace => trace.text))")
        assert browser.troubles() == []
        assert browser.requests() == [page.as_uri(), (page.parent / "plotly.min.js").as_uri()]
    assert kinds == [["scatter", "scatter"], ["scatter3d", "scatter3d"]]
    expected = sorted(f"planet {planet}" for planet in read_run(report.parents[1]).planet_ids)
    assert [sorted(names) for names in named] == [expected, expected]


@pytest.mark.slow
def test_what_is_lost_is_told_once_and_the_rest_is_shown(report: Path, tmp_path: Path) -> None:
    run = copy_linked(report.parents[1], tmp_path / "run")
    for name in ("metrics.json", "predictions/flags.json", "submission/coverage_certificate.md"):
        (run / name).unlink()
    data = read_run(run)
    for name in ("metrics.json", "flags.json", "coverage certificate"):
        lines = [line for line in data.missing if name in line]
        assert len(lines) == 1
        assert lines[0].count(name) == 1
    assert "certificate" not in draw_panels(data, figures=False)[0]


@pytest.mark.slow
def test_a_planet_without_a_fit_has_its_fallback_and_no_curves(report: Path, tmp_path: Path) -> None:
    run = copy_linked(report.parents[1], tmp_path / "run")
    unit = run / "predictions" / MANIFEST
    told = read(unit)
    planet = next(name for name in told["identity"]["inputs"] if name.startswith("fit/"))
    del told["identity"]["inputs"][planet]
    unit.unlink()
    unit.write_text(json.dumps(told))
    data = read_run(run)
    row = data.planet_ids.index(planet.removeprefix("fit/"))
    assert row not in data.curves
    assert np.isfinite(data.mean[row]).all()
    assert any("1 of" in line and "fallback" in line for line in data.missing)
    assert packed_planets(data)[0][row]["curves"] == []


@pytest.mark.slow
def test_a_model_that_cannot_be_read_costs_only_the_latents(report: Path, tmp_path: Path) -> None:
    run = copy_linked(report.parents[1], tmp_path / "run")
    network = run / CHECKPOINT / "networks" / "0-0"
    network.mkdir(parents=True)
    (network / "network.json").write_text("{}")
    data = read_run(run)
    assert any(line.startswith("latents of the network") for line in data.missing)
    assert len(data.curves) == len(data.planet_ids)


def synthetic(planets: int, samples: int) -> RunData:
    """Planets with noise for spectra and light curves, which no compression shortens; three in four are train
    planets."""
    rng = np.random.default_rng(0)
    truth = 0.01 + 1e-4 * rng.normal(size=(planets, 283))
    sigma = rng.uniform(2e-5, 1e-4, size=(planets, 283))
    hours = np.linspace(-4.0, 4.0, samples)
    curves = {
        row: [
            WhiteCurve(name, 0, hours, 1e-3 * rng.normal(size=samples), 1e-3 * rng.normal(size=samples))
            for name in ("FGS1", "AIRS-CH0")
        ]
        for row in range(planets)
    }
    return RunData(
        path=Path("run"),
        planet_ids=tuple(str(1000 + row) for row in range(planets)),
        splits=tuple("train" if row < 3 * planets // 4 else "test" for row in range(planets)),
        mean=truth + sigma * rng.normal(size=(planets, 283)),
        sigma=sigma,
        truth=truth,
        curves=curves,
    )


def test_page_of_eleven_hundred_planets_is_below_15_megabytes():
    run = synthetic(1100, 200)
    found = {n: draw_panel(n, build(run), False) for n, build in (("gll", score_heatmap), ("calibration", calibration))}
    text = page(run, found)
    assert len(text.encode()) < 15e6
    assert "http-equiv" in text
    assert "default-src 'none'" in text


def test_packed_numbers_come_back():
    run = synthetic(4, 50)
    entries, content = packed_planets(run)
    numbers = np.frombuffer(content, "<u2")
    for row, entry in enumerate(entries):
        first, length, least, step = entry["mean"]
        restored = least + step * numbers[first : first + length]
        assert np.abs(restored - run.mean[row]).max() <= np.ptp(run.mean[row]) / STEPS


def test_attributions_stand_beside_rules():
    """Bins 101 to 124 move most; one rule is broken in them, another elsewhere, a third nowhere."""
    wl = np.tile(np.arange(1, 284), 2)
    among = (wl > 100) & (wl <= 124)
    table = pd.DataFrame({"planet_id": np.repeat(["1003", "1002"], 283), "wl": wl, "top": among})
    table["attribution_ppm"], table["network_ppm"] = np.where(among, 50.0, 10.0), np.nan
    table["fft"], table["asymmetry"], table["smoothness"] = 1e-3 * (wl == 110), 1e-3 * (wl == 7), 0.0
    explanation = {"checks": {"attribution_sum_error": 2e-11}, "rules": {"penalty_in_top_bins": 0.5, "by_chance": 0.08}}
    panel = overlay(replace(synthetic(4, 20), overlay=table, explanation=explanation))
    heat = panel.charts[0].heatmap
    assert list(heat.x) == [f"wl_{number}" for number in range(101, 125)]
    assert list(heat.y) == ["attributions of light curves", "fft"]
    assert heat.values[1, 9] == 1.0
    assert heat.values[1].sum() == 1.0
    assert panel.table[9] == {
        "bin": "wl_110",
        "attributions (ppm)": 50.0,
        "costliest rule": "fft",
        "its cost (points)": 1e-3,
    }
    assert panel.table[0]["costliest rule"] == "-"
    assert any("within 2.0e-11" in note for note in panel.notes)
    assert draw_panel("overlay", panel).files["shap_symbolic.png"].startswith(b"\x89PNG")


@pytest.fixture
def own_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panels, "_registered", {})


@pytest.mark.usefixtures("own_panels")
def test_the_documented_panel_joins_the_report() -> None:
    run = synthetic(4, 20)
    example = re.search(r"```python\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    exec(example[1], {})  # noqa: S102
    found, failed = draw_panels(run)
    assert failed == []
    assert found["transit_depths"].files["transit_depths.png"].startswith(b"\x89PNG")
    points = found["transit_depths"].document["charts"][0]["series"][0]
    np.testing.assert_allclose(points["y"], 1e6 * run.mean[:, 1:].mean(axis=1), rtol=1e-4)
    assert "Transit depths" in page(run, found)


@pytest.mark.usefixtures("own_panels")
def test_a_panel_that_fails_is_named_and_costs_no_other() -> None:
    def broken(run: RunData) -> Panel:
        raise ZeroDivisionError("of mine")

    chart = Chart("reliability_test", "", "", "", (Series("", [0, 1], [0, 1]),))
    register("broken", broken)
    register("thief", lambda run: Panel("Same file as another", (chart,)))
    register("outside", lambda run: Panel("A file elsewhere", files={"../x.csv": ""}))
    register("ragged", lambda run: Panel("Ragged", (replace(chart, name="r", series=(Series("", [0, 1], [0]),)),)))
    register("list", lambda run: Panel("Numbers without names", numbers=[1.0]))
    run = synthetic(4, 20)
    found, failed = draw_panels(run)
    assert {"scores", "calibration", "score_heatmap", "residuals"} <= set(found)
    named = {line.split(":")[0]: line for line in failed}
    assert set(named) == {"panel broken", "panel thief", "panel outside", "panel ragged", "panel list"}
    assert named["panel broken"] == "panel broken: ZeroDivisionError: of mine"
    assert "reliability_test.png" in named["panel thief"]
    assert "../x.csv" in named["panel outside"]
    assert named["panel broken"] in page(replace(run, missing=tuple(failed)), found)


def test_run_without_truth_or_ledger_has_no_such_panels():
    run = synthetic(4, 20)
    unknown = RunData(run.path, run.planet_ids, run.splits, run.mean, run.sigma, np.full_like(run.truth, np.nan))
    assert [build(unknown) for build in (scores, calibration, score_heatmap, ledger, overlay)] == [None] * 5
    entries, _ = packed_planets(unknown)
    assert all("truth" not in entry and entry["curves"] == [] for entry in entries)


def test_a_directory_without_a_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    for place, found in (
        (empty, f"neither {CHECKPOINT / OUT_OF_FOLD} nor {PREDICTIONS}"),
        (tmp_path / "no", "no directory"),
    ):
        done = CliRunner().invoke(app, ["diagnose", "dashboard", str(place)])
        assert done.exit_code == 2
        assert done.stderr.startswith(f"error: {place}: expected")
        assert f"found {found}. Name the directory" in done.stderr
        assert done.stderr.count("\n") == 1
    assert list(empty.iterdir()) == []
