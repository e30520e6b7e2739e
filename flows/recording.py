"""What goes to MLflow, and when: once for each trained predictor, and its official score where the truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import spectramind
from flows import served_model
from flows.promotion import Decision, decide, publish
from flows.tasks import remembered
from flows.tracking import Destination, ServedModel, Tracker, flatten, tracked_run
from settings.tree import settings_hash, without_credentials
from spectramind.provenance.digests import digest_json
from spectramind.provenance.environment import environment_snapshot

if TYPE_CHECKING:
    from flows.network import FoldNetwork
    from flows.train import Training
    from flows.workspace import Workspace

SPOOL = "tracking_spool.jsonl"
REQUIREMENTS = ("numpy", "scipy", "pandas", "safetensors")
"""What the served model imports."""
NETWORK_REQUIREMENTS = ("torch", "torch-geometric", "dask", "zarr")
"""What it imports besides if it has networks."""


def record_training(work: Workspace, training: Training) -> str | None:
    """Log parameters, metrics, figure and model, and register it; the MLflow run's id, None if there is none.

    A predictor that is logged already is not logged again, and a tracking store that fails changes nothing.
    """
    if not work.settings.tracking.enable:
        return None
    destination = _destination(work)
    register = work.settings.tracking.register_models
    key = {"record": training.digest, "register": register, **_where(work, destination, register)}
    row: Mapping[str, Any] = remembered(
        "record in MLflow",
        digest_json(key),
        lambda: _record(work, destination, training),
        work.layout.task_results,
        lambda found: found["run_id"] is not None and _exists(destination),
    )
    if row["promotion"] is not None:
        publish(work, row["promotion"])
    run_id: str | None = row["run_id"]
    return run_id


def register_best(work: Workspace, training: Training) -> None:
    """Register a predictor whose run did not, under that run, unless it is registered already."""
    run_id = record_training(work, training)
    if run_id is None:
        return
    destination = _destination(work)

    def register() -> dict[str, Any]:
        tracker = Tracker(destination, work.run.path / SPOOL, work.warn, run_id=run_id)
        promotion = _register(work, tracker, training)
        return {"promotion": None if tracker.warnings else promotion}

    key = digest_json({"register": training.digest, **_where(work, destination, True)})
    row = remembered(
        "register in MLflow",
        key,
        register,
        work.layout.task_results,
        lambda found: found["promotion"] is not None and _exists(destination),
    )
    if row["promotion"] is not None:
        publish(work, row["promotion"])


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


def _record(work: Workspace, destination: Destination, training: Training) -> dict[str, Any]:
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
        tracker.files(
            [path for path in (reports / "data_quality.html", reports / "data_docs") if path.exists()], "reports"
        )
        promotion = _register(work, tracker, training) if work.settings.tracking.register_models else None
    return {"run_id": None if tracker.warnings else tracker.run_id, "promotion": promotion}


def _register(work: Workspace, tracker: Tracker, training: Training) -> Decision | None:
    """Register the model and decide whether it becomes the champion; None if MLflow fails."""
    registered = tracker.model(_served(training))
    if registered is None:
        return None
    decision = decide(work, training, registered.champion_model)
    if decision["promoted"] and not tracker.promote(registered):
        decision |= {"promoted": False, "refused": ["another model became the champion meanwhile"]}
    return {"version": registered.version, "champion": registered.champion, **decision}


def _curves(network: FoldNetwork) -> dict[str, list[tuple[int, float]]]:
    """What each epoch of a network measured, by name; validations between epochs are placed by their step."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in network.history():
        for name, value in row.items():
            if name not in ("phase", "epoch", "step"):
                key = f"network_{network.name}/{row['phase']}/{name}"
                curves.setdefault(key, []).append((int(row.get("step", row["epoch"])), float(value)))
    return curves


def _served(training: Training) -> ServedModel:
    predictor = served_model.Predictor.load(training.path)
    libraries = REQUIREMENTS + (NETWORK_REQUIREMENTS if predictor.networks else ())
    return ServedModel(
        training.path,
        Path(served_model.__file__),
        (Path(spectramind.__file__).parent,),
        tuple(f"{name}=={metadata.version(name)}" for name in libraries),
        predictor.inputs,
        predictor.outputs,
    )


def _destination(work: Workspace) -> Destination:
    tracking = work.settings.tracking
    return Destination.of(work.layout.root, tracking.uri or None, tracking.experiment)


def _where(work: Workspace, destination: Destination, register: bool) -> dict[str, Any]:
    """Where a record goes and, of one that registers, what its promotion depends on."""
    tracking = work.settings.tracking
    injected = (work.settings.recovery, work.settings.simulation)
    gate = [asdict(options) for options in injected] if register and tracking.promotion == "gated" else None
    promotion = tracking.promotion if register else None
    return {"uri": destination.uri, "experiment": destination.experiment, "promotion": promotion, "gate": gate}


def _exists(destination: Destination) -> bool:
    """A database that was removed has forgotten its runs; a server is taken at its word."""
    return destination.artifacts is None or Path(destination.uri.removeprefix("sqlite:///")).exists()
