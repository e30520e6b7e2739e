"""Knobs of the conformal graph network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spectramind.options import option


@dataclass(frozen=True)
class CorelOptions:
    """How the network of relative errors is trained and made conformal."""

    target: float = option(0.90, "Level of the interval that is named first; all levels are reported.", gt=0, lt=1)
    holdout: float = option(0.2, "Share of the planets that make the intervals conformal.", gt=0, le=0.4)
    check: float = option(0.2, "Share of the planets that only measure what came out.", gt=0, le=0.4)
    min_planets: int = option(
        20, "With fewer planets no network is trained: intervals are plainly split-conformal.", ge=5, le=100_000
    )
    instance: bool = option(
        False,
        "After the network, try a factor on a planet's widths by the scatter and the differences of its light curves; "
        "kept only if the planets that choose the network's weight gain by it.",
    )
    loss: Literal["pinball", "mse"] = option(
        "pinball", "Quantile loss, or squared error of the median with a penalty on the coverage."
    )
    coverage_weight: float = option(1.0, "Weight of the coverage penalty of the mse loss.", ge=0, le=1000)
    epochs: int = option(20, "Passes over the training planets.", ge=1, le=10_000)
    batch: int = option(256, "Planets in a step; fewer where an epoch would have less than eight steps.", ge=1, le=4096)
    learning_rate: float = option(1e-3, "Learning rate of AdamW.", gt=0, le=1)
    hidden: int = option(32, "Width of the network.", ge=4, le=1024)
    embedding: int = option(16, "Learned numbers that tell a bin from others.", ge=1, le=256)
    heads: int = option(2, "Attention heads along the physical edges.", ge=1, le=16)
    layers: int = option(2, "Rounds of messages.", ge=1, le=8)
    relations: int = option(20, "Learned relations of each bin.", ge=1, le=282)

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise ValueError(f"corel: hidden {self.hidden} is not a multiple of heads {self.heads}")
