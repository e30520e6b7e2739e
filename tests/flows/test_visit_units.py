"""Fits never use a damaged cube: it is made again first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flows.units import CubeJob, FitJob, calibrate_unit, cube_identity, fit_identity, fit_unit
from spectramind.calibration.options import CalibrationOptions
from spectramind.cubes.options import CubeOptions
from spectramind.data.layout import open_dataset
from spectramind.errors import InputError
from spectramind.instruments import INSTRUMENTS, Instrument
from spectramind.provenance.digests import digest_json, file_digest
from spectramind.provenance.units import unit_path, verify_unit
from spectramind.simulation.dataset import SimulatedDataset
from spectramind.transit.options import TransitOptions

pytestmark = pytest.mark.slow


def cube_job(simulated: SimulatedDataset, store: Path, instrument: Instrument) -> CubeJob:
    planet = simulated.train_ids[0]
    dataset = open_dataset(simulated.root)
    inputs = {name: file_digest(path) for name, path in dataset.visit_files("train", planet, 0).items()}
    identity = cube_identity(planet, 0, instrument, inputs, CalibrationOptions(), CubeOptions())
    return CubeJob(
        root=simulated.root,
        metadata_digest=digest_json({name: file_digest(file) for name, file in dataset.metadata_files().items()}),
        split="train",
        planet_id=planet,
        visit=0,
        instrument=instrument,
        target=unit_path(store / "cubes", identity),
        identity=identity,
        calibration=CalibrationOptions(),
        cubes=CubeOptions(),
        digest_index=store / "digests.sqlite",
    )


def test_a_worker_that_sees_another_data_set_says_so(simulated: SimulatedDataset, tmp_path: Path) -> None:
    job = replace(cube_job(simulated, tmp_path, INSTRUMENTS[0]), metadata_digest="0")
    with pytest.raises(
        InputError, match=r"expected the metadata files that the run has found, found others on \S+\. Let"
    ):
        calibrate_unit(job)


def flip_a_bit(file: Path) -> None:
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


def test_a_damaged_cube_is_made_again_before_it_is_fitted(simulated: SimulatedDataset, tmp_path: Path) -> None:
    jobs = tuple(cube_job(simulated, tmp_path, instrument) for instrument in INSTRUMENTS)
    cubes = {job.instrument.name: calibrate_unit(job) for job in jobs}
    star = open_dataset(simulated.root).star("train", simulated.train_ids[0])
    identity = fit_identity(star, {name: cube.digest for name, cube in cubes.items()}, TransitOptions())

    def fit(place: str) -> str:
        return fit_unit(
            FitJob(star, (jobs,), tmp_path / place, identity, TransitOptions(), jobs[0].digest_index)
        ).digest

    undisturbed = fit("undisturbed")
    damages: tuple[tuple[str, str, Callable[[Path], None]], ...] = (
        ("AIRS-CH0", "flux/c.0.0", flip_a_bit),
        ("FGS1", "variance/c.0.0", Path.unlink),
        ("AIRS-CH0", "time/zarr.json", flip_a_bit),
    )
    for number, (instrument, name, damage) in enumerate(damages):
        cube = cubes[instrument].path
        damage(cube / "cube.zarr" / instrument / name)
        assert verify_unit(cube)
        assert fit(f"fit{number}") == undisturbed
        assert verify_unit(cube) == []
