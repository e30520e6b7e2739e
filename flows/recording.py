"""What goes to MLflow, and when: once for each trained predictor, and its official score where the truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import spectramind
from flows import served_model
from flows.spectra_files import read_predictions
from flows.tasks import remembered
from flows.tracking import Destination, ServedModel, Tracker, flatten, tracked_run
from settings.tree import settings_hash, without_credentials
from spectramind.metrics.score import paired_bootstrap, reference_of, score_parts
from spectramind.provenance.digests import digest_json
from spectramind.provenance.environment import environment_snapshot
from spectramind.submission.table import in_order

if TYPE_CHECKING:
    from flows.network import FoldNetwork
    from flows.train import Training
    from flows.workspace import Workspace

SPOOL = "tracking_spool.jsonl"
REQUIREMENTS = ("numpy", "scipy", "pandas", "safetensors")
"""What the served model imports."""
NETWORK_REQUIREMENTS = ("torch", "torch-geometric", "dask", "zarr")
"""What it imports besides if it has networks."""
OUT_OF_FOLD = "out_of_fold.parquet"


def record_training(work: Workspace, training: Training) -> str | None:
    """Log parameters, metrics, figure and model, and register it; the MLflow run's id, None if there is none.

    A predictor that is logged already is not logged again, and a tracking store that fails changes nothing.
    """
    if not work.settings.tracking.enable:
        return None
    destination = _destination(work)
    where = {"uri": destination.uri, "experiment": destination.experiment}
    key = digest_json({"record": training.digest, "register": work.settings.tracking.register_models, **where})
    row: Mapping[str, str | None] = remembered(
        "record in MLflow",
        key,
        lambda: {"run_id": _record(work, destination, training)},
        work.layout.task_results,
        lambda found: found["run_id"] is not None and _exists(destination),
    )
    return row["run_id"]


def record_score(work: Workspace, run_id: str | None, scores: Mapping[str, float]) -> None:
    """Add the scores of the test split to the run of the predictor that made them."""
    if run_id is None:
        return
    destination = _destination(work)

    def send() -> dict[str, bool]:
        tracker = Tracker(destination, work.run.path / SPOOL, work.warn, run_id=run_id)
        tracker.metrics({f"test/{name}": value for name, value in scores.items()})
        return {"sent": not tracker.warnings}

    key = digest_json({"record": run_id, "scores": dict(scores), "uri": destination.uri})
    remembered("record score in MLflow", key, send, work.layout.task_results, lambda found: bool(found["sent"]))


def _record(work: Workspace, destination: Destination, training: Training) -> str | None:
    environment = environment_snapshot()
    tags = {
        "repo_sha": environment["git_commit"],
        "config_hash": settings_hash(work.settings),
        "data_rev": work.data_revision,
        "model_digest": training.digest,
        "run_directory": str(work.run.path.resolve()),
    }
    parameters = without_credentials(work.settings.to_dict())
    with tracked_run(
        destination, work.run.path / SPOOL, work.warn, f"train-v50 {training.digest[:8]}", parameters, tags
    ) as tracker:
        numbers = {f"oof/{name.replace('.', '/')}": value for name, value in flatten(training.metrics).items()}
        tracker.metrics({name: float(value) for name, value in numbers.items() if isinstance(value, int | float)})
        tracker.curves({name: curve for network in training.networks for name, curve in _curves(network).items()})
        tracker.files([training.path / "out_of_fold.svg"], "figures")
        reports = work.run.path / "calibration"
        tracker.files([reports / "data_quality.html", reports / "data_docs"], "reports")
        if work.settings.tracking.register_models:
            tracker.model(_served(work, training))
    return None if tracker.warnings else tracker.run_id


def _curves(network: FoldNetwork) -> dict[str, list[tuple[int, float]]]:
    """What each epoch of a network measured, by name."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in network.history():
        for name, value in row.items():
            if name not in ("phase", "epoch"):
                key = f"network_{network.name}/{row['phase']}/{name}"
                curves.setdefault(key, []).append((int(row["epoch"]), float(value)))
    return curves


def _served(work: Workspace, training: Training) -> ServedModel:
    libraries = REQUIREMENTS + (NETWORK_REQUIREMENTS if training.networks else ())
    predictor = served_model.Predictor.load(training.path)
    return ServedModel(
        training.path,
        Path(served_model.__file__),
        (Path(spectramind.__file__).parent,),
        tuple(f"{name}=={metadata.version(name)}" for name in libraries),
        predictor.inputs,
        predictor.outputs,
        lambda earlier: beats(work, training.path, earlier),
    )


def beats(work: Workspace, checkpoint: Path, earlier: Path) -> bool:
    """Whether `checkpoint` predicts held-out planets better than the model in the folder `earlier`, beyond the luck of
    the planets drawn (paired bootstrap, 95 %). False if the latter was trained on other planets."""
    new = read_predictions(checkpoint / OUT_OF_FOLD)
    old = read_predictions(next(earlier.rglob(OUT_OF_FOLD)))
    if set(new.planet_ids) != set(old.planet_ids):
        return False
    labels = work.labels(new.planet_ids)
    old = in_order(old, new.planet_ids)
    by_planet = [score_parts(s.mean, s.sigma, labels, *reference_of(labels)).by_planet for s in (new, old)]
    return paired_bootstrap(*by_planet).low > 0


def _destination(work: Workspace) -> Destination:
    tracking = work.settings.tracking
    return Destination.of(work.layout.root, tracking.uri or None, tracking.experiment)


def _exists(destination: Destination) -> bool:
    """A database that was removed has forgotten its runs; a server is taken at its word."""
    return destination.artifacts is None or Path(destination.uri.removeprefix("sqlite:///")).exists()
