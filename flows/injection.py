"""Flow `injection-recovery`: spectra that the simulator knows, sent through calibration, fit and a trained predictor.

Everything is a unit of the store, so that a predictor is tested once, and predictors that share calibration and fits
share those of the injected planets.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow

from flows.batches import remembered_unit
from flows.calibrate import calibrate
from flows.fit import Fits, fit_split
from flows.network import fgs1_curves
from flows.published import replace_tree, run_directory
from flows.run_directory import RECOVERY, RunDirectory
from flows.served_model import Predictor
from flows.simulate import workers
from flows.spectra_files import read_predictions
from flows.tables import spectra_frame
from flows.workspace import Workspace, workspace
from settings.groups import DataOptions
from settings.tree import Settings
from spectramind.data.layout import open_dataset
from spectramind.metrics.recovery import Recovery, recovered
from spectramind.provenance.digests import code_digest, file_digest
from spectramind.provenance.units import unit_path
from spectramind.simulation.dataset import simulate_dataset

if TYPE_CHECKING:
    from flows.train import Training

RECOVERED = "recovered.parquet"
INJECTION = "injection"
"""In the run's directory: what was recovered, and the run on the injected planets."""


def injection_recovery(work: Workspace, training: Training) -> tuple[Recovery, ...]:
    """How the predictor of `training` recovers injected spectra; what it predicted goes to `recovery/` of the run.

    Raises InputError if fewer than three planets come through.
    """
    root = _injected_dataset(work)
    settings = work.settings.model_copy(
        update={
            "data": DataOptions(root=root, visits=work.settings.data.visits),
            "calibration": replace(work.settings.calibration, stage="features"),
            "outputs": replace(work.settings.outputs, dir=work.run.path.absolute() / INJECTION),
            # Few planets: a second set of workers would take longer to start than they take.
            "dask": replace(work.settings.dask, scheduler="synchronous"),
        }
    )
    with RunDirectory.create(settings, "injection-recovery") as run:
        path = _recover(settings, run, str(training.path), training.digest)
    replace_tree(path, work.run.path / RECOVERY)
    spectra = read_predictions(path / RECOVERED)
    listed, depths = open_dataset(root).labels()
    truth = depths[[listed.index(planet) for planet in spectra.planet_ids]]
    return recovered(spectra.mean, spectra.sigma, truth, work.settings.recovery)


def _injected_dataset(work: Workspace) -> Path:
    """The data set that `recovery` and `simulation` describe; its planets are those of the train split, whose truth a
    data set has."""
    settings, recovery = work.settings, work.settings.recovery
    options = replace(
        settings.simulation,
        train_planets=recovery.planets,
        test_planets=1,
        thin=recovery.thin,
        fgs1_thin=0,
        two_visit_fraction=0.0,
        cut_fraction=0.0,
    )
    read = [Path(options.spectra_file)] if options.spectra_file else []
    read += [path for folder in options.detector_from for path in sorted(Path(folder).rglob("*.parquet"))]
    identity = {
        "kind": "injected data set",
        "inputs": {str(path): file_digest(path) for path in read},
        "settings": {"simulation": asdict(options), "seed": recovery.seed},
        "code": code_digest("spectramind.simulation", "spectramind.transit.light_curve", "spectramind.instruments"),
    }
    target = unit_path(work.layout.injected, identity)

    def write(folder: Path) -> None:
        simulate_dataset(folder / "data", options, recovery.seed, workers(settings))

    remembered_unit(work, "simulate injected planets", target, identity, write)
    return target / "data"


@flow(name="injection-recovery")
def _recover(settings: Settings, run: RunDirectory, checkpoint: str, digest: str) -> Path:
    """The unit with the spectra that the predictor in `checkpoint` finds in the data set of `settings`."""
    with workspace(settings, run, "injection-recovery") as work:
        run_directory(work.run.path)
        calibration = calibrate(settings, run)
        fits = fit_split(work, "train", calibration)
        identity = _identity(fits, digest)
        target = unit_path(work.layout.predictions, identity)

        def write(folder: Path) -> None:
            predictor = Predictor.load(Path(checkpoint))
            curves = fgs1_curves(calibration, "train", fits.planets) if predictor.networks else ()
            spectra = predictor.spectra(*fits.load(), curves)
            spectra_frame(spectra).to_parquet(folder / RECOVERED, index=False)

        remembered_unit(work, "recover", target, identity, write)
        return target


def _identity(fits: Fits, checkpoint: str) -> dict[str, Any]:
    return {
        "kind": "recovered spectra",
        "inputs": {**{f"fit/{planet}": digest for planet, digest in fits.digests.items()}, "checkpoint": checkpoint},
        "settings": {},
        "code": code_digest(
            *("spectramind.models", "spectramind.transit", "spectramind.uncertainty"),
            *("flows.injection", "flows.served_model"),
        ),
    }
