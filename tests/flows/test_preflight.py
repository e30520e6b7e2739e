"""The forecast for a notebook, from planets that are really calibrated and fitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.preflight import Plan, Rates, measured, preflight
from flows.run_directory import RunDirectory
from settings.resolve import resolve
from settings.tree import Settings
from spectramind.errors import InputError
from spectramind.simulation.dataset import SimulatedDataset


@pytest.fixture
def settings(simulated: SimulatedDataset, tmp_path: Path) -> Settings:
    places = (f"data.root={simulated.root}", f"outputs.dir={tmp_path}/run", f"outputs.store={tmp_path}/store")
    return resolve([*places, "dask.scheduler=synchronous", "runtime=kaggle"])


def trained(settings: Settings, seconds: float, planets: int) -> None:
    """A finished run on the store that says what its training took."""
    with RunDirectory.create(settings, "train") as run:
        run.journal.event("trained", seconds=seconds)
        run.add_metrics({"out_of_fold": {"planets": planets}})


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The first line of each check."""
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    return {line[1]: line[0] for line in lines if len(line) == 2 and line[0] in ("PASS", "FAIL")}


def verdict(lines: dict[str, str], name: str) -> str:
    return next(found for line, found in lines.items() if line.startswith(f"{name}  "))


def test_planets_are_timed_and_nothing_stays_behind(settings: Settings, tmp_path: Path) -> None:
    rates = measured(settings)
    assert rates.timed == 2
    assert min(rates.digest_s, rates.calibrate_s, rates.fit_s, rates.peak_bytes) > 0
    assert rates.planet_s == pytest.approx(rates.digest_s + rates.calibrate_s + rates.fit_s)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One second a planet, on any machine."""
    monkeypatch.setattr("flows.preflight.measured", lambda _settings: Rates(0.1, 0.6, 0.3, 4, 2, 2**20))


@pytest.mark.usefixtures("fixed")
def test_a_run_that_fits_passes(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    trained(settings, seconds=36.0, planets=9)
    preflight(settings, Plan(3000, 600, 9.0))
    out = capsys.readouterr().out
    assert "FAIL" not in out
    assert "1.00 h for 3000 test and 600 train planets" in " ".join(out.split())
    assert "1.67 of 9 h" in out  # and 600 / 9 * 36 s of training


@pytest.mark.usefixtures("fixed")
def test_what_does_not_fit_fails_with_exit_code_2(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    trained(settings, seconds=36.0, planets=9)
    with pytest.raises(InputError) as stopped:
        preflight(settings, Plan(40_000, 0, 9.0))
    assert stopped.value.exit_code == 2
    lines = told(capsys)
    assert (verdict(lines, "time in all"), verdict(lines, "time budget")) == ("FAIL", "PASS")


@pytest.mark.usefixtures("fixed")
def test_training_that_nobody_has_timed_is_not_taken_for_free(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    other = resolve(["model.folds=3"]).model
    trained(settings.model_copy(update={"model": other}), seconds=1.0, planets=9)
    with pytest.raises(InputError):
        preflight(settings, Plan(1, 10, 9.0))
    assert verdict(told(capsys), "time for training") == "FAIL"
    preflight(settings, Plan(1, 0, 9.0))


@pytest.mark.usefixtures("fixed")
def test_addresses_and_a_budget_beyond_the_limit_fail(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect:4200/api")
    with pytest.raises(InputError):
        preflight(settings, Plan(1, 0, 8.5))
    lines = told(capsys)
    assert (verdict(lines, "no network"), verdict(lines, "time budget")) == ("FAIL", "FAIL")
    assert verdict(lines, "memory") == "PASS"
