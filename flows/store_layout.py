"""Where the shared store keeps what, below `outputs.store`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from settings.groups import OutputsOptions
from spectramind.provenance.s3 import S3Path


@dataclass(frozen=True)
class StoreLayout:
    """Paths of a store; units (cubes, fits, models, predictions) are directories named by their identity's digest.

    What workers make, cubes and fits, is in the `bucket` of a store in S3 storage; `root` is then `outputs.cache`, and
    has everything else.
    """

    root: Path
    bucket: S3Path | None = None

    @classmethod
    def of(cls, outputs: OutputsOptions) -> StoreLayout:
        return cls(outputs.local, None if isinstance(outputs.store, Path) else S3Path(outputs.store))

    @property
    def digest_index(self) -> Path:
        return self.root / "digests.sqlite"

    @property
    def cubes(self) -> Path | S3Path:
        return self._shared / "cubes"

    def cube_unit(self, split: str, planet_id: str, visit: int, instrument: str) -> Path | S3Path:
        return self.cubes / split / f"{planet_id}_{visit}" / instrument

    def fit_unit(self, split: str, planet_id: str) -> Path | S3Path:
        return self._shared / "fits" / split / planet_id

    def fit_copy(self, split: str, planet_id: str) -> Path:
        """Where a fit is on this machine, too."""
        return self.root / "fits" / split / planet_id

    @property
    def _shared(self) -> Path | S3Path:
        return self.bucket or self.root

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def references(self) -> Path:
        """What each run needs of the store."""
        return self.root / "runs"

    @property
    def use_lock(self) -> Path:
        return self.root / ".in_use"

    @property
    def trash(self) -> Path:
        """What is no longer in the store, until it is deleted."""
        return self.root / ".trash"

    @property
    def injected(self) -> Path:
        """Simulated data sets of injection-recovery."""
        return self.root / "injected"

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
