from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

from spectramind.provenance.environment import _driver_version, _gpus, environment_snapshot


def test_the_snapshot_names_what_made_a_result() -> None:
    snapshot = environment_snapshot()
    expected = {"git_commit", "dvc_rev", "docker_image", "poetry_lock_hash", "torch_version", "cuda_version"}
    assert expected | {"driver_version", "python", "platform", "cpu_count", "ram_bytes"} <= snapshot.keys()
    assert snapshot["python"] == platform.python_version()
    assert snapshot["libraries"]["numpy"] == np.__version__
    assert snapshot["ram_bytes"] > 1e8
    assert json.loads(json.dumps(snapshot)) == snapshot


def test_the_environment_has_the_last_word_and_no_library_is_imported() -> None:
    program = (
        "import json, sys; from spectramind.provenance.environment import environment_snapshot as s;"
        "print(json.dumps([s(), sorted({'numpy', 'torch', 'zarr', 'dask'} & set(sys.modules))]))"
    )
    variables = {"GIT_COMMIT": "abc", "CUDA_VERSION": "12.6", "NVIDIA_DRIVER_VERSION": "570", "DOCKER_IMAGE": "image:1"}
    answer = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, check=True)
    snapshot, imported = json.loads(answer.stdout)
    assert imported == []
    names = ("git_commit", "cuda_version", "driver_version", "docker_image")
    assert [snapshot[name] for name in names] == ["abc", "12.6", "570", "image:1"]


def test_gpus_and_driver_are_read_from_the_kernel_module(tmp_path: Path) -> None:
    for number, name in enumerate(("NVIDIA H100 80GB HBM3", "NVIDIA A100")):
        folder = tmp_path / "gpus" / f"0000:{number:02d}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t {name}\nIRQ:   \t\t 42\n")
    version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release Build"
    (tmp_path / "version").write_text(f"{version}\nGCC version:  gcc version 12.2.0\n")
    assert _gpus(tmp_path) == ["NVIDIA H100 80GB HBM3", "NVIDIA A100"]
    assert _driver_version(tmp_path) == "570.133.20"
    assert (_gpus(tmp_path / "none"), _driver_version(tmp_path / "none")) == ([], "unknown")
