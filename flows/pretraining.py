"""Pre-training: a network trained on simulated planets, from which those of the run's own planets start.

The simulated data set is kept in the store and goes through the same calibration and fits as any other.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from flows.calibrate import calibrate
from flows.fit import fit_split
from flows.network import FoldNetwork, analytic_posterior, network_inputs, train_on_all
from flows.run_directory import RunDirectory, store_errors
from flows.simulate import simulate
from flows.workspace import workspace
from settings.groups import DataOptions
from spectramind.provenance.digests import code_digest, digest_json
from spectramind.simulation.dataset import truth_folder

if TYPE_CHECKING:
    from flows.workspace import Workspace


def pretrained(work: Workspace) -> FoldNetwork | None:
    """The network that the others start from; None unless `train.pretrain` asks for it.

    Raises BudgetReached if the time budget of the run ends before it has one.
    """
    settings = work.settings
    if settings.train.pretrain == "none":
        return None
    path = work.run.folder("pretraining")
    simulated = settings.model_copy(
        update={
            "data": DataOptions(root=_simulated(work)),
            "train": replace(settings.train, pretrain="none"),
            "outputs": replace(settings.outputs, dir=path),
        }
    )
    with RunDirectory.create(simulated, "pretrain") as run:
        run.started = work.run.started  # one time budget for all
        with workspace(simulated, run, "pretrain") as other:
            calibration = calibrate(simulated, run)
            fits = fit_split(other, "train", calibration)
            labels = other.labels(fits.planets)
            posterior = analytic_posterior(other, fits, labels)
            planets = network_inputs(other, fits, posterior, calibration)
            return train_on_all(other, fits, posterior, planets, labels)


def _simulated(work: Workspace) -> Path:
    """The simulated data set of the settings, made unless it is there."""
    options, seed = work.settings.simulation, work.settings.runtime.seed
    identity = {"options": asdict(options), "seed": seed, "code": code_digest("spectramind.simulation")}
    root = work.layout.root / "simulated" / digest_json(identity)[:16]
    with store_errors(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.with_suffix(".lock")):
            if not root.exists():
                shutil.rmtree(truth_folder(root), ignore_errors=True)  # of a killed run: the data set comes last
                simulate(work.settings, root)
    return root
