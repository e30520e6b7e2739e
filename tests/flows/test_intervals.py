"""Methods of intervals, own ones and others, by the table that they leave."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_errors import WAVELENGTHS, bins_of_molecules, erring_spectra

from flows import interval_methods
from flows.interval_methods import Intervals, interval_method, method_identity, register
from flows.intervals import (
    INTERVALS,
    INTERVALS_REPORT,
    coverage_line,
    held_out_planets,
    interval_coverage,
    interval_log,
    write_intervals,
)
from settings.resolve import resolve
from spectramind.errors import InputError, SettingsError
from spectramind.types import Floats, Spectra
from spectramind.uncertainty.scaling import SigmaScaling

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "uncertainty.md"
FAST = ("corel.hidden=16", "corel.layers=1", "corel.epochs=25", "corel.learning_rate=4e-3", "runtime.seed=3")


def population(n: int, seed: int, correlated: float) -> tuple[Spectra, Floats]:
    """Spectra and truths of `n` planets."""
    mean, sigma, truth = erring_spectra(n, seed, correlated)
    return Spectra(tuple(f"{seed}-{number}" for number in range(n)), mean, sigma), truth


def written(folder: Path, method: str, correlated: float, *settings: str, n: int = 200) -> pd.DataFrame:
    folder.mkdir()
    known, truth = population(n, 1, correlated)
    held_out = held_out_planets(known, truth, None, WAVELENGTHS, resolve(settings, None, {}))
    write_intervals(folder, method, held_out, population(30, 2, correlated)[0], None, {"2-0"})
    return pd.read_parquet(folder / INTERVALS)


@pytest.mark.parametrize("method", ["split", "region", pytest.param("corel", marks=pytest.mark.slow)])
def test_correlated_residuals_of_two_bands_widen_their_intervals_alone(method: str, tmp_path: Path) -> None:
    widths = []
    for correlated in (0.0, 1.5):
        table = written(tmp_path / f"{correlated}", method, correlated, *FAST)
        assert set(table["planet_id"]) == {f"2-{number}" for number in range(1, 30)}  # not that of the fallback
        level = table[table["level"] == 0.9]
        widths.append((level["high"] - level["low"]).groupby(level["wl"]).mean().to_numpy())
    ratio = widths[1] / widths[0]
    band = bins_of_molecules("h2o", "co2")
    assert ratio[band].mean() == pytest.approx(np.hypot(1, 1.5), rel=0.15)
    assert ratio[~band].mean() == pytest.approx(1.0, abs=0.1)
    assert ratio[band].min() > ratio[~band].max()


def test_an_own_method_joins_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As documented."""
    monkeypatch.setattr(interval_methods, "_registered", {})
    settings = resolve(["intervals.method=widest"], None, {})
    with pytest.raises(SettingsError, match="one of corel, region, split, found 'widest'"):
        interval_method("widest")
    example = re.search(r"```python\n(.*?register.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    exec(example[1], {})  # noqa: S102
    table = written(tmp_path / "own", "widest", 0.0, n=20)
    known, truth = population(20, 1, 0.0)
    np.testing.assert_allclose(table["high"] - table["low"], 2 * np.abs(truth - known.mean).max(), rtol=1e-12)
    told, lines = interval_log(tmp_path / "own", SigmaScaling.identity(283))
    assert told["steps"] == [{"step": "widest", "kept": True}]
    assert lines == ["Intervals (widest, 20 planets): widest", "  by the worst"]
    identity = method_identity(settings)
    assert identity["method"] == "widest"
    assert identity["source"] is None  # not from a file
    assert method_identity(resolve(["intervals.method=region"], None, {}))["source"] is not None

    register("widest", lambda held_out: Intervals(held_out.levels, lambda m, s, e, band: (m, s), 1, {}))
    with pytest.raises(InputError, match="method widest of intervals"):
        written(tmp_path / "bad", "widest", 0.0, n=20)


def test_too_few_planets_leave_the_limits_open(tmp_path: Path) -> None:
    for method in ("split", "region"):
        table = written(tmp_path / method, method, 0.0, n=10)
        open_ = np.isinf(table.groupby("level")["high"].max())
        assert open_.to_dict() == {0.68: False, 0.8: False, 0.9: False, 0.95: True}
        told = json.loads((tmp_path / method / INTERVALS_REPORT).read_text())
        assert told["width_ppm"]["0.95"] is None
        new, truth = population(30, 2, 0.0)
        found = interval_coverage(tmp_path / method / INTERVALS, new.planet_ids[:9], truth[:9])
        assert found["0.95"] == {"all": 1.0, "least": 1.0, "most": 1.0, "band": 1.0}
        rows = table[(table["level"] == 0.68) & table["planet_id"].isin(new.planet_ids[:9])]
        low, high = (rows[name].to_numpy().reshape(8, 283) for name in ("low", "high"))
        assert found["0.68"]["all"] == pytest.approx(np.mean((low <= truth[1:9]) & (truth[1:9] <= high)))
        assert found["0.68"]["least"] < found["0.68"]["all"] < found["0.68"]["most"]
        assert coverage_line(found).startswith("test depths inside their intervals  68%: ")
        assert told["width_ppm"]["0.9"] > told["width_ppm"]["0.68"] > 0
