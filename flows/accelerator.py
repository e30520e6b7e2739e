"""What a run that asks for a GPU does where there is none."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace

from settings.tree import Settings
from spectramind.errors import SettingsError


def on_this_machine(settings: Settings, warn: Callable[[str], None]) -> Settings:
    """`settings` as this machine can run them: `train.device=gpu` without a GPU is refused with SettingsError, or goes
    on as `cpu` with a warning, as `runtime.without_gpu` says."""
    if settings.train.device != "gpu" or gpu_is_here():
        return settings
    where = f"train.device=gpu, but PyTorch finds no GPU on {platform.node()}"
    if settings.runtime.without_gpu == "refuse":
        raise SettingsError(f"{where}; start a worker of the pool gpu elsewhere, or allow runtime.without_gpu=cpu")
    warn(f"{where}: training on the processor")
    return settings.model_copy(update={"train": replace(settings.train, device="cpu")})


def gpu_is_here() -> bool:
    """Whether PyTorch can train on a GPU of this machine."""
    import torch

    return torch.cuda.is_available()
