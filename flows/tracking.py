"""Experiment tracking. The only module that imports MLflow.

Tracking never stops the work: the first failure is told once, and from then on what would have gone to MLflow is
appended to a JSON-lines file in the run's directory.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flows.orchestration import TELEMETRY_OFF
from flows.store_layout import StoreLayout
from settings.tree import without_credentials
from spectramind.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient

Value = TypeVar("Value")

REGISTERED_MODEL = "spectramind-v50"
CANDIDATE = "candidate"
"""Alias of the registered model's newest version: `models:/spectramind-v50@candidate`."""
CHAMPION = "champion"
"""Alias of the version that no later one was allowed to replace."""

MLFLOW_ENVIRONMENT = {
    **TELEMETRY_OFF,
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""What MLflow calls an experiment of training runs."""

PARAMETER_BATCH, METRIC_BATCH = 100, 1000
"""What one request to an MLflow server may carry."""

PARAMETER_LENGTH = 6000


@dataclass(frozen=True)
class Destination:
    """An MLflow tracking store: `uri`, the `experiment`, where a new experiment keeps its files (None: the server
    decides) and the lock under which a database is initialised."""

    uri: str
    experiment: str
    artifacts: Path | None
    lock: Path

    @classmethod
    def of(cls, store: Path, uri: str | None, experiment: str) -> Destination:
        """`uri` if given, else a SQLite database inside `store`."""
        layout = StoreLayout(store)
        if uri:
            return cls(uri, experiment, None, layout.mlflow_lock)
        return cls(layout.mlflow_uri, experiment, layout.mlflow_artifacts.resolve(), layout.mlflow_lock)


@dataclass(frozen=True)
class ServedModel:
    """A model for the registry: the `checkpoint` directory, the module file whose `_load_pyfunc` reads it, the source
    packages that this module needs, the exact versions of the libraries, and the columns that go in and come out, each
    with its MLflow type."""

    checkpoint: Path
    loader: Path
    sources: tuple[Path, ...]
    requirements: tuple[str, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Registered:
    """A new `version` of the registered model, and the version that is the champion at that time with a folder that
    holds its model; None if there is none."""

    version: str
    champion: str | None
    champion_model: Path | None


@dataclass
class Tracker:
    """One run. `run_id` is None while MLflow has not answered; `warnings` tells what failed."""

    destination: Destination
    spool: Path
    warn: Callable[[str], None]
    run_id: str | None = None
    warnings: list[str] = field(default_factory=list)

    def start(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Open a run with its parameters and tags."""
        flat = {key: str(value)[:PARAMETER_LENGTH] for key, value in flatten(parameters).items()}

        def send() -> None:
            client = _client(self.destination)
            experiment_id = _experiment_id(client, self.destination)
            run = client.create_run(experiment_id, run_name=name, tags=dict(tags))
            self.run_id = run.info.run_id
            self._send_parameters(client, flat)

        self._attempt({"event": "start", "name": name, "parameters": flat, "tags": dict(tags)}, send)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log finite `values`, in batches."""
        curves = {name: [(step, value)] for name, value in values.items()}
        self._attempt({"event": "metrics", "values": dict(values), "step": step}, lambda: self._send_curves(curves))

    def curves(self, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
        """Log the finite values of each curve, given as (step, value), in batches."""
        event = {"event": "curves", "curves": {name: list(curve) for name, curve in curves.items()}}
        self._attempt(event, lambda: self._send_curves(curves))

    def files(self, paths: Sequence[Path], folder: str | None = None) -> None:
        """Attach files to the run, such as figures and reports."""

        def send() -> None:
            for path in paths:
                _client(self.destination).log_artifact(self._id, str(path), folder)

        self._attempt({"event": "files", "paths": [str(path) for path in paths], "folder": folder}, send)

    def model(self, model: ServedModel) -> Registered | None:
        """Log the model to the run and register a new version of `spectramind-v50`, from now on the candidate; None if
        MLflow fails."""

        def send() -> Registered:
            import mlflow
            from mlflow.models import ModelSignature
            from mlflow.types import ColSpec, Schema

            inputs, outputs = (
                Schema([ColSpec(kind, name) for name, kind in table.items()]) for table in (model.inputs, model.outputs)
            )
            mlflow.set_tracking_uri(self.destination.uri)
            # MLflow prints its progress past its own log level.
            with redirect_stderr(io.StringIO()), mlflow.start_run(run_id=self._id):
                info = mlflow.pyfunc.log_model(
                    name="model",
                    loader_module=model.loader.stem,
                    data_path=str(model.checkpoint),
                    code_paths=[str(model.loader), *map(str, model.sources)],
                    pip_requirements=list(model.requirements),
                    signature=ModelSignature(inputs, outputs),
                    registered_model_name=REGISTERED_MODEL,
                )
            client, version = _client(self.destination), str(info.registered_model_version)
            client.set_registered_model_alias(REGISTERED_MODEL, CANDIDATE, version)
            champion = _champion(client)
            return Registered(version, champion, None if champion is None else _download(champion))

        return self._attempt({"event": "model", "checkpoint": str(model.checkpoint)}, send)

    def promote(self, registered: Registered) -> bool:
        """Make a version the champion, unless the champion is no longer the one that it was compared with; whether it
        is."""

        def send() -> bool:
            client = _client(self.destination)
            if _champion(client) != registered.champion:
                return False
            client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, registered.version)
            return True

        return bool(self._attempt({"event": "promote", "version": registered.version}, send))

    def finish(self, status: str) -> None:
        """Close the run as `FINISHED` or `FAILED`."""
        self._attempt({"event": "finish", "status": status}, lambda: self._finish(status))

    def _finish(self, status: str) -> None:
        _client(self.destination).set_terminated(self._id, status)

    @property
    def _id(self) -> str:
        if self.run_id is None:
            raise RuntimeError("the MLflow run was not created")
        return self.run_id

    def _send_parameters(self, client: MlflowClient, flat: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        for batch in _batches([Param(key, value) for key, value in flat.items()], PARAMETER_BATCH):
            client.log_batch(self._id, params=batch)

    def _send_curves(self, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
        import math
        import time

        from mlflow.entities import Metric

        now, client = int(time.time() * 1000), _client(self.destination)
        points = [(name, value, step) for name, curve in curves.items() for step, value in curve]
        entities = [Metric(name, value, now, step) for name, value, step in points if math.isfinite(value)]
        for batch in _batches(entities, METRIC_BATCH):
            client.log_batch(self._id, metrics=batch)

    def _attempt(self, event: Mapping[str, Any], send: Callable[[], Value]) -> Value | None:
        # Any failure of a tracking service, an absent library included, must leave the training untouched.
        if not self.warnings:
            try:
                return send()
            except Exception as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                message = without_credentials(f"MLflow at {self.destination.uri} failed ({reason}); see {self.spool}")
                self.warnings.append(message)
                self.warn(message)
        self.spool.parent.mkdir(parents=True, exist_ok=True)
        with self.spool.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"run_id": self.run_id, **event}, default=str) + "\n")
        return None


@contextmanager
def tracked_run(
    destination: Destination,
    spool: Path,
    warn: Callable[[str], None],
    name: str,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
) -> Iterator[Tracker]:
    """A run that is closed whatever happens inside the block."""
    tracker = Tracker(destination, spool, warn)
    tracker.start(name, parameters, tags)
    try:
        yield tracker
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish("FINISHED")


def aliased_models(destination: Destination) -> list[dict[str, str]]:
    """The tags of each training run whose model has an alias, such as the champion; none without a registry.

    Raises StoreError if the registry does not answer: what it would protect is then unknown.
    """
    if destination.artifacts is not None and not Path(destination.uri.removeprefix("sqlite:///")).exists():
        return []
    try:
        client = _client(destination)
        found = client.search_registered_models(f"name='{REGISTERED_MODEL}'")
        versions = {version for model in found for version in model.aliases.values()}
        ids = [client.get_model_version(REGISTERED_MODEL, version).run_id for version in sorted(versions)]
        return [dict(client.get_run(run_id).data.tags) for run_id in ids if run_id]
    except Exception as error:
        address = without_credentials(destination.uri)
        raise StoreError(f"MLflow at {address} does not say which models are in use ({error}); start it") from error


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def _champion(client: MlflowClient) -> str | None:
    version = client.get_registered_model(REGISTERED_MODEL).aliases.get(CHAMPION)
    return None if version is None else str(version)


def _download(version: str) -> Path:
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(f"models:/{REGISTERED_MODEL}/{version}"))


def _client(destination: Destination) -> MlflowClient:
    os.environ.update(MLFLOW_ENVIRONMENT)
    import mlflow
    from filelock import FileLock

    destination.lock.parent.mkdir(parents=True, exist_ok=True)
    # Two processes that migrate one new database at the same time break it.
    with FileLock(destination.lock):
        return mlflow.MlflowClient(tracking_uri=destination.uri, registry_uri=destination.uri)


def _experiment_id(client: MlflowClient, destination: Destination) -> str:
    from filelock import FileLock

    with FileLock(destination.lock):
        experiment = client.get_experiment_by_name(destination.experiment)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = None if destination.artifacts is None else destination.artifacts.as_uri()
        return str(client.create_experiment(destination.experiment, location, tags=EXPERIMENT_TAGS))


def _batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
