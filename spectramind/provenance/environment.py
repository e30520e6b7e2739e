"""The software and hardware that a result was made with. Nothing here imports the libraries that it names."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from spectramind.provenance.digests import file_digest

UNKNOWN = "unknown"
ROOT = Path(__file__).resolve().parents[2]
"""The checkout, if the package runs from one."""

LIBRARIES = (
    "spectramind", "numpy", "scipy", "numba", "polars", "pyarrow", "pandas", "dask", "distributed", "zarr", "numcodecs",
    "xarray", "obstore", "safetensors", "pydantic", "pydantic-settings", "prefect", "mlflow", "great-expectations",
    "matplotlib", "plotly", "torch", "torch-geometric", "mamba-ssm",
)  # fmt: skip


def environment_snapshot() -> dict[str, Any]:
    """What a run's files record of its environment; a value that cannot be known is the word `unknown`.

    Keys: git_commit (with `-dirty` if files differ from it), dvc_rev (None unless the checkout holds a `.dvc` folder),
    docker_image, poetry_lock_hash (SHA-256 of requirements.lock), python, platform, cpu_count, ram_bytes,
    torch_version, cuda_version, driver_version, libraries (name: version of those installed).
    """
    return {**_snapshot(), "libraries": dict(_snapshot()["libraries"])}


@functools.cache
def _snapshot() -> dict[str, Any]:
    commit = os.environ.get("GIT_COMMIT") or _git_commit()
    libraries = {name: version for name in LIBRARIES if (version := _version(name))}
    lock = ROOT / "requirements.lock"
    return {
        "git_commit": commit,
        "dvc_rev": commit if (ROOT / ".dvc").is_dir() else None,
        "docker_image": os.environ.get("DOCKER_IMAGE") or UNKNOWN,
        "poetry_lock_hash": file_digest(lock) if lock.is_file() else UNKNOWN,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "ram_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "torch_version": libraries.get("torch", UNKNOWN),
        "cuda_version": os.environ.get("CUDA_VERSION") or _cuda_version(),
        "driver_version": os.environ.get("NVIDIA_DRIVER_VERSION") or UNKNOWN,
        "libraries": libraries,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cuda_version() -> str:
    """Of the CUDA runtime that comes with PyTorch's wheels."""
    names = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")
    return next((version for name in names if (version := _version(name))), UNKNOWN)


def _git_commit() -> str:
    """Full hash of the checkout's commit, `-dirty` appended if tracked files differ from it."""
    if not (ROOT / ".git").exists():
        return UNKNOWN
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return answer.stdout.strip() or UNKNOWN
