"""Contracts in a run: a hard failure sets a planet aside, a soft one flags it, too many end the run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from conftest import copy_linked
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.contracts import flags, planet_flags
from flows.quality import validate
from spectramind.simulation.dataset import SimulatedDataset

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def calibrate(root: Path, store: Path, out: Path) -> Result:
    arguments = [f"data.root={root}", f"outputs.store={store}", f"outputs.dir={out}", "dask.scheduler=synchronous"]
    return CliRunner().invoke(app, ["calibrate", "calibration.stage=fgs1", *arguments])


def spoil_pixels(planet: Path, dead: float, hot: float) -> None:
    """These shares of FGS1's pixels are dead and hot, wherever the star is."""
    rng = np.random.default_rng(0)
    for name, share, change in (("dead", dead, lambda old: True), ("dark", hot, lambda old: old + 50.0)):
        path = planet / "FGS1_calibration_0" / f"{name}.parquet"
        values = pl.read_parquet(path).to_numpy()
        values = np.where(rng.random(values.shape) < share, change(values), values)
        path.unlink()
        pl.DataFrame(values, schema=[f"column_{number}" for number in range(values.shape[1])]).write_parquet(path)


@pytest.fixture(scope="module")
def judged(simulated: SimulatedDataset, store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run on a data set whose first test planet has lost most pixels, and whose second has lost many."""
    folder = tmp_path_factory.mktemp("judged")
    root = copy_linked(simulated.root, folder / "data")
    spoil_pixels(root / "test" / simulated.test_ids[0], 0.45, 0.3)
    spoil_pixels(root / "test" / simulated.test_ids[1], 0.1, 0.1)
    return folder / "run", calibrate(root, store, folder / "run")


def quality(run: Path) -> Any:
    return json.loads((run / "calibration" / "data_quality.json").read_text(encoding="utf-8"))


def test_a_hard_failure_sets_the_planet_aside_with_the_reason(
    judged: tuple[Path, Result], simulated: SimulatedDataset
) -> None:
    run, done = judged
    assert done.exit_code == 0, done.output
    planet = simulated.test_ids[0]
    (row,) = [row for row in quality(run)["quarantined"] if row["split"] == "test"]
    assert row["planet_id"] == planet
    assert re.match(r"expected bad_pixel_share ≤ 0\.5, found 0\.6\d+\. Most pixels", row["reason"])
    assert f"set aside: planet {planet} (test), visit 0: " in " ".join(done.stdout.split())


def test_a_soft_failure_flags_the_planet_everywhere(judged: tuple[Path, Result], simulated: SimulatedDataset) -> None:
    run, _ = judged
    planet = simulated.test_ids[1]
    document = quality(run)
    assert planet not in {row["planet_id"] for row in document["quarantined"]}
    flagged = [flag for flag in document["flagged"] if flag["planet_id"] == planet]
    assert "bad_pixel_share" in {flag["what"] for flag in flagged}
    assert all(flag["meaning"] and flag["cure"] and flag["found"] for flag in flagged)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    (event,) = [e for e in events if e["event"] == "flag" and e["what"] == "bad_pixel_share of FGS1"]
    assert f"{planet} test 0 FGS1" in event["found"]
    page = (run / "calibration" / "data_quality.html").read_text(encoding="utf-8")
    assert f"<td>{planet}</td>" in page[page.index("Flagged planets") :]


def test_every_light_curve_names_its_cube_and_the_report_what_it_comes_from(judged: tuple[Path, Result]) -> None:
    document = quality(judged[0])
    assert all(re.fullmatch("[0-9a-f]{64}", row["cube"]) for row in document["light_curves"])
    assert {"data set", "calibrated cubes", "suites", "settings", "code"} <= set(document["lineage"])
    page = (judged[0] / "calibration" / "data_quality.html").read_text(encoding="utf-8")
    assert all(digest in page for digest in document["lineage"].values())


def test_the_flow_run_links_the_report_and_shows_the_verdicts(judged: tuple[Path, Result]) -> None:
    from prefect.artifacts import Artifact

    link = Artifact.get("data-quality")
    assert link is not None
    assert "data_quality.html" in str(link.data)
    verdicts = Artifact.get("data-contracts")
    assert verdicts is not None
    assert re.search(r"\| Calibrated visits \| \d+ \| \d+ \| \d+ \|", str(verdicts.data))


def test_more_than_one_percent_of_train_planets_set_aside_end_the_run(
    simulated: SimulatedDataset, store: Path, tmp_path: Path
) -> None:
    root = copy_linked(simulated.root, tmp_path / "data")
    spoil_pixels(root / "train" / simulated.train_ids[0], 0.45, 0.3)  # beside the one that is damaged from the start
    done = calibrate(root, store, tmp_path / "run")
    assert done.exit_code == 2
    assert re.fullmatch(
        r"error: \S+/train: expected at most 1 of 10 train planets set aside, found 2 \(.+\)\. "
        r"Restore their files, or raise data\.quarantine_limit \(0\.01\); \S+data_quality\.html has them all\.\n",
        done.stderr,
    )
    lost = {row["planet_id"] for row in quality(tmp_path / "run")["quarantined"]}
    assert lost == {simulated.train_ids[0], simulated.train_ids[-1]}
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_the_words_that_a_planet_carries() -> None:
    stars = {"Rs": 1.0, "Ms": 1.0, "Ts": 5000.0, "Mp": 1.0, "e": 0.0, "P": 3.0, "sma": 9.0, "i": 88.0, "visits": 1}
    odd = pd.DataFrame(
        {"planet_id": ["7", "8", "9"], "split": ["test", "test", "train"], **stars, "e": [0.99, 0.0, 0.99]}
    )
    work: Any = SimpleNamespace(
        verdicts={"raw_metadata": validate("raw_metadata", odd)},
        set_aside={("test", "8", 1): "damaged", ("test", "6", 0): "damaged"},
        visits=[SimpleNamespace(key=("test", *visit)) for visit in (("6", 0), ("7", 0), ("8", 0), ("8", 1))],
    )
    assert planet_flags(work, "test") == {"7": ("e",), "8": ("visit 1 set aside",)}
    assert {(flag["planet_id"], flag["split"]) for flag in flags(work)} == {("7", "test"), ("9", "train")}
