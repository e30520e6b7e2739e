"""The units of work that Dask spreads over workers: one instrument of a visit calibrated, one planet fitted.

Jobs carry paths, digests and options, so that any process can do them; their results are digests, never arrays.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from flows.journal import finite_json
from spectramind.calibration.options import CalibrationOptions
from spectramind.cubes.options import CubeOptions
from spectramind.data.layout import Dataset, Split, open_dataset
from spectramind.errors import InputError, QuarantineError
from spectramind.instruments import INSTRUMENTS, Instrument
from spectramind.provenance.digests import FileDigests, code_digest, digest_json, file_digest
from spectramind.provenance.units import Place, UnitResult, build_and_read, build_unit
from spectramind.transit.options import TransitOptions
from spectramind.types import CalibratedVisit, LightCurve, RawExposure, Star

FIT, FIT_SUMMARY = "fit.npz", "summary.json"

CALIBRATION_TABLES = ("adc_info.csv", "train_adc_info.csv", "test_adc_info.csv", "axis_info.parquet", "wavelengths.csv")
"""The metadata files that the calibration of a visit depends on."""


@dataclass(frozen=True)
class Done:
    """A finished unit."""

    path: Place
    digest: str
    computed: bool


@dataclass(frozen=True)
class CubeJob:
    """Calibrate one instrument of one visit into the unit `target`."""

    root: Path
    metadata_digest: str
    split: Split
    planet_id: str
    visit: int
    instrument: Instrument
    target: Place
    identity: Mapping[str, Any]
    calibration: CalibrationOptions
    cubes: CubeOptions
    digest_index: Path


@dataclass(frozen=True)
class FitJob:
    """Fit one planet's calibrated visits, each given by its cubes, into the unit `target`."""

    star: Star
    visits: tuple[tuple[CubeJob, ...], ...]
    target: Place
    identity: Mapping[str, Any]
    transit: TransitOptions
    digest_index: Path


def cube_identity(
    planet_id: str,
    visit: int,
    instrument: Instrument,
    inputs: Mapping[str, str],
    calibration: CalibrationOptions,
    cubes: CubeOptions,
) -> dict[str, Any]:
    """What a cube depends on: the instrument's files, the metadata tables, the options and the code."""
    others = tuple(f"{other.name}_" for other in INSTRUMENTS if other != instrument)
    return {
        "kind": "calibrated visit",
        "inputs": {name: digest for name, digest in inputs.items() if not name.startswith(others)},
        "settings": {
            "planet_id": planet_id,
            "visit": visit,
            "instrument": instrument.name,
            "calibration": asdict(calibration),
            "cubes": asdict(cubes),
        },
        "code": _calibration_code(),
    }


def fit_identity(star: Star, cube_digests: Mapping[str, str], transit: TransitOptions) -> dict[str, Any]:
    """What a fit depends on: the calibrated visits, the row of the star table, the options and the code."""
    row = {name: repr(value) for name, value in asdict(star).items()}
    return {
        "kind": "transit fit",
        "inputs": {**cube_digests, "star": digest_json(row)},
        "settings": {"transit": asdict(transit)},
        "code": _transit_code(),
    }


def calibrate_unit(job: CubeJob) -> Done:
    """Read, calibrate and store one instrument of a visit. QuarantineError if its files are unusable."""
    result = _calibrated(job)
    return Done(result.path, result.digest, result.computed)


def _calibrated(job: CubeJob) -> UnitResult:
    from spectramind.calibration.kill_chain import calibrate_visit
    from spectramind.cubes.store import write_cube
    from spectramind.data.frames import read_exposure

    def write(folder: Path) -> None:
        dataset = _dataset(job.root, job.metadata_digest)

        def read(instrument: Instrument) -> RawExposure:
            return read_exposure(dataset, job.split, job.planet_id, job.visit, instrument)

        visit = calibrate_visit(read, job.planet_id, job.visit, job.calibration, (job.instrument,))
        write_cube(folder, visit, {"inputs": digest_json(job.identity["inputs"])}, job.cubes)

    return build_unit(job.target, job.identity, write, digests=FileDigests(job.digest_index))


def light_curves(job: CubeJob) -> Mapping[str, LightCurve]:
    """The light curves in a cube, every byte verified; a damaged cube is made again."""
    from spectramind.cubes.store import read_cube

    return build_and_read(partial(_calibrated, job), read_cube)[1].curves


def fit_unit(job: FitJob) -> Done:
    """Fit one planet. QuarantineError if no spectrum can be had from its light curves.

    Every byte of a cube is verified before it is used; a damaged one is made again.
    """
    from spectramind.cubes.store import read_cube
    from spectramind.transit.fit import fit_planet

    def write(folder: Path) -> None:
        visits = [
            joined([build_and_read(partial(_calibrated, cube), read_cube)[1] for cube in cubes]) for cubes in job.visits
        ]
        try:
            fit = fit_planet(visits, job.star, job.transit)
        except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
            raise QuarantineError(
                f"planet {job.star.planet_id}", "light curves with a transit", f"no fit ({error})", "Look at its cubes."
            ) from error
        fit.save(folder / FIT)
        summary = json.dumps(finite_json(fit.summary), indent=1, sort_keys=True)
        (folder / FIT_SUMMARY).write_text(summary, encoding="utf-8")

    result = build_unit(job.target, job.identity, write, digests=FileDigests(job.digest_index))
    return Done(result.path, result.digest, result.computed)


def joined(parts: Sequence[CalibratedVisit]) -> CalibratedVisit:
    """One visit of what was calibrated instrument by instrument."""
    return CalibratedVisit(
        parts[0].planet_id,
        parts[0].visit,
        {name: curve for part in parts for name, curve in part.curves.items()},
        {name: steps for part in parts for name, steps in part.steps.items()},
        {name: summary for part in parts for name, summary in part.summary.items()},
    )


@lru_cache(maxsize=1)
def _dataset(root: Path, metadata_digest: str) -> Dataset:
    """Opened once per process and state of the metadata. InputError if this process sees another data set there."""
    dataset = open_dataset(root)
    found = digest_json({name: file_digest(path) for name, path in dataset.metadata_files().items()})
    if found != metadata_digest:
        cure = "Let all workers see the data set at the same path."
        raise InputError(root, "the metadata files that the run has found", f"others on {socket.gethostname()}", cure)
    return dataset


@lru_cache(maxsize=1)
def _calibration_code() -> str:
    return code_digest(
        *("spectramind.data", "spectramind.calibration", "spectramind.cubes"),
        *("spectramind.types", "spectramind.instruments"),
    )


@lru_cache(maxsize=1)
def _transit_code() -> str:
    return code_digest("spectramind.transit", "spectramind.types", "spectramind.instruments")
