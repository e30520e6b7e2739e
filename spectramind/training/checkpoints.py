"""The state of a training in one file of tensors with a JSON header, read back without running any code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spectramind.errors import InputError

FORMAT = "spectramind-training-1"


class SafetensorsIO(CheckpointIO):
    """How Lightning keeps checkpoints: written beside their place, then renamed, so that a kill leaves the old one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        tensors: dict[str, Tensor] = {}
        header = json.dumps(_encode(checkpoint, tensors))
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        save_file(tensors, partial, metadata={"format": FORMAT, "state": header})
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(target)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Raises InputError if the file is no such checkpoint."""
        return load_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def load_state(path: Path) -> dict[str, Any]:
    """What was saved at `path`. Raises InputError if it is missing, damaged or something else."""
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(path, FORMAT, str(metadata.get("format")), "Remove it; training then starts anew.")
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
        state: dict[str, Any] = _decode(json.loads(metadata["state"]), tensors)
        return state
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(path, "a training checkpoint", str(error), "Remove it; training then starts anew.") from error


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON that tells dictionaries with any keys, tuples and tensors apart. Raises TypeError for other objects."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_encode(key, tensors), _encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list):
        return [_encode(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, tensors) for item in value]}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"a checkpoint holds plain values and tensors, not {type(value).__name__}")


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    return {_decode(key, tensors): _decode(item, tensors) for key, item in content}


def weights(path: Path) -> dict[str, Tensor]:
    """The module's parameters in the checkpoint at `path`."""
    state: dict[str, torch.Tensor] = load_state(path)["state_dict"]
    return state
