"""Where the shared store keeps what, below `outputs.store`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StoreLayout:
    """Paths of a store; units (cubes, fits, models, predictions) are directories named by their identity's digest."""

    root: Path

    @property
    def digest_index(self) -> Path:
        return self.root / "digests.sqlite"

    def cube_unit(self, split: str, planet_id: str, visit: int, instrument: str) -> Path:
        return self.root / "cubes" / split / f"{planet_id}_{visit}" / instrument

    def fit_unit(self, split: str, planet_id: str) -> Path:
        return self.root / "fits" / split / planet_id

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def prefect_home(self) -> Path:
        return self.root / "prefect"

    @property
    def task_results(self) -> Path:
        return self.root / "prefect" / "results"

    @property
    def mlflow_uri(self) -> str:
        return f"sqlite:///{(self.root / 'mlflow.db').resolve()}"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlartifacts"

    @property
    def mlflow_lock(self) -> Path:
        return self.root / "mlflow.lock"
