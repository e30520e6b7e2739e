"""The software and hardware that a result was made with. Nothing here imports the libraries that it names."""

from __future__ import annotations

import copy
import functools
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from spectramind.provenance.digests import file_digest

UNKNOWN = "unknown"
ROOT = Path(__file__).resolve().parents[2]
"""The checkout, if the package runs from one."""

NVIDIA = Path("/proc/driver/nvidia")

LIBRARIES = (
    "spectramind", "numpy", "scipy", "numba", "polars", "pyarrow", "pandas", "dask", "distributed", "zarr", "numcodecs",
    "xarray", "obstore", "safetensors", "pydantic", "pydantic-settings", "prefect", "mlflow", "great-expectations",
    "matplotlib", "plotly", "torch", "torch-geometric", "mamba-ssm",
)  # fmt: skip


def environment_snapshot() -> dict[str, Any]:
    """What a run's files record of its environment; a value that cannot be known is the word `unknown`.

    Keys: git_commit (with `-dirty` if files differ from it), dvc_rev (None unless the checkout holds a `.dvc` folder),
    docker_image, poetry_lock_hash (SHA-256 of requirements.lock), python, platform, cpu_model, cpu_count, ram_bytes,
    gpus (their names), torch_version, cuda_version, driver_version, libraries (name: version of those installed).
    """
    return copy.deepcopy(_snapshot())


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
        "cpu_model": _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or UNKNOWN,
        "cpu_count": os.cpu_count(),
        "ram_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _gpus(),
        "torch_version": libraries.get("torch", UNKNOWN),
        "cuda_version": os.environ.get("CUDA_VERSION") or _cuda_version(),
        "driver_version": os.environ.get("NVIDIA_DRIVER_VERSION") or _driver_version(),
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


def _gpus(drivers: Path = NVIDIA) -> list[str]:
    """Names of the NVIDIA GPUs as their kernel module lists them."""
    return [_field(path, "Model") or UNKNOWN for path in sorted(drivers.glob("gpus/*/information"))]


def _driver_version(drivers: Path = NVIDIA) -> str:
    """Of the NVIDIA kernel module."""
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", _text(drivers / "version"))
    return found[1] if found else UNKNOWN


def _field(path: Path, name: str) -> str | None:
    """The first value of `name` in a file of lines `name: value`."""
    found = re.search(rf"^{name}\s*:\s*(.+?)\s*$", _text(path), re.MULTILINE)
    return found[1] if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


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
