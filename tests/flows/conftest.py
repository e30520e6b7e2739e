"""One simulated data set and one Prefect server for all tests of the flows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from spectramind.provenance.units import MANIFEST
from spectramind.simulation.dataset import SimulatedDataset, simulate_dataset
from spectramind.simulation.options import SimulationOptions

TINY = SimulationOptions(
    train_planets=10, test_planets=3, airs_frames=120, fgs1_frames=240, two_visit_fraction=0.0, cut_fraction=0.0
)
SEED = 5


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> SimulatedDataset:
    """Ten train and three test planets with few frames; the last train planet's FGS1 frames are cut short."""
    made = simulate_dataset(tmp_path_factory.mktemp("simulated") / "tiny", TINY, SEED, workers=2)
    damaged = made.root / "train" / made.train_ids[-1] / "FGS1_signal_0.parquet"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    return made


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A Prefect server of the tests' own, the one that a run starts; commands that a test starts use it too."""
    from flows.orchestration import configure

    configure(tmp_path_factory.mktemp("prefect"))


def finished_units(store: Path) -> list[Path]:
    """Cubes and fits in a store, also while others are made: `os.walk` overlooks what is renamed meanwhile."""
    walks = (os.walk(store / kind) for kind in ("cubes", "fits"))
    found = [Path(parent) for walk in walks for parent, _, names in walk if MANIFEST in names]
    return [path for path in found if path.suffix != ".partial"]


def copy_linked(source: Path, target: Path) -> Path:
    """A copy of a folder whose files are hard links; a file to be changed must be replaced."""
    shutil.copytree(source, target, copy_function=os.link)
    return target
