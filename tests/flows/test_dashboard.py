"""The report's page: small for many planets, open to own panels, and plain about what is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows import panels
from flows.charts import Chart, Series
from flows.dashboard import STEPS, packed_planets, page
from flows.panels import Panel, all_panels, calibration, ledger, register, score_heatmap, scores
from flows.run_data import RunData, read_run
from spectramind.errors import InputError
from spectramind.transit.fit import WhiteCurve


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
    found = {name: build(run) for name, build in (("gll", score_heatmap), ("calibration", calibration))}
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


def test_own_panel_joins_the_report(monkeypatch):
    monkeypatch.setattr(panels, "_registered", {})

    def depths(run: RunData) -> Panel:
        chart = Chart("my_depths", "Depths", "planet", "depth", (Series("mean", [0, 1], run.mean[:2, 0]),))
        return Panel("My depths", (chart,), notes=["Mine."])

    register("depths", depths)
    run = synthetic(4, 20)
    made = all_panels()["depths"](run)
    assert made.charts[0].to_png().startswith(b"\x89PNG")
    assert "My depths" in page(run, {"depths": made})


def test_run_without_truth_or_ledger_has_no_such_panels():
    run = synthetic(4, 20)
    unknown = RunData(run.path, run.planet_ids, run.splits, run.mean, run.sigma, np.full_like(run.truth, np.nan))
    assert [build(unknown) for build in (scores, calibration, score_heatmap, ledger)] == [None] * 4
    entries, _ = packed_planets(unknown)
    assert all("truth" not in entry and entry["curves"] == [] for entry in entries)


def test_empty_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match="has trained or predicted"):
        read_run(tmp_path)
    with pytest.raises(InputError, match="no directory"):
        read_run(tmp_path / "nowhere")
