"""Attributions beside broken rules: whether the bins that the light curves move most are those that break physics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.explain_figures import draw_overlay
from flows.journal import finite_json
from flows.network import found_violations
from flows.workspace import Workspace
from spectramind.instruments import N_WAVELENGTHS
from spectramind.types import Floats, Spectra

OVERLAY = "shap_symbolic.parquet"
TOP_BINS = 24
"""Of each planet: those whose depths the light curves move most."""
NUMBERS = ("attribution_ppm", "network_ppm")
"""Columns of the overlay beside `planet_id`, `wl`, `top` and the rules."""


def overlay_table(
    work: Workspace,
    predictions: Spectra,
    posterior: Spectra,
    attributions: Mapping[str, Floats],
    bins: Mapping[str, Sequence[int]],
    network: Mapping[str, Floats],
) -> pd.DataFrame:
    """One row per planet and bin: `top` for its explained `bins`; `attribution_ppm`, the sum of the absolute
    `attributions` (283, 283) of a planet over sources; `network_ppm`, that of the Shapley values of the network's mean
    correction (bins explained,), NaN elsewhere; and of each active rule, under its name, what the bin costs in points
    of score. `predictions` and `posterior` have these planets in the same order."""
    found = found_violations(work, predictions, posterior.mean)
    weights = {name: rule.weight for name, rule in work.settings.symbolic.by_name.items()}
    parts = []
    for row, planet in enumerate(predictions.planet_ids):
        shown = np.isin(np.arange(N_WAVELENGTHS), bins[planet])
        from_network = np.full(N_WAVELENGTHS, np.nan)
        if planet in network:
            from_network[shown] = 1e6 * network[planet] * posterior.sigma[row, shown]
        columns: dict[str, Any] = {
            "planet_id": planet,
            "wl": np.arange(1, N_WAVELENGTHS + 1),
            "top": shown,
            "attribution_ppm": 1e6 * np.abs(attributions[planet]).sum(axis=1),
            "network_ppm": from_network,
        }
        rules = {rule: weights[rule] * found.by_bin[place, row] for place, rule in enumerate(found.rules)}
        parts.append(pd.DataFrame(columns | rules))
    return pd.concat(parts, ignore_index=True)


def rules_of(table: pd.DataFrame) -> list[str]:
    """The rules among the columns of an overlay."""
    return [name for name in table if name not in {"planet_id", "wl", "top", *NUMBERS}]


def write_overlays(table: pd.DataFrame, sum_errors: Mapping[str, float], folder: Path) -> dict[str, float]:
    """A figure and its numbers for each planet; returns the share of all penalties that lies in the bins moved most,
    and what it would be if penalties were spread evenly.

    `sum_errors`: by planet, the largest difference of the sum of a bin's attributions from the change of its depth,
    over the largest change.
    """
    for planet, own in table.groupby("planet_id", sort=False):
        top = own[own["top"]]
        document = {
            "planet_id": planet,
            "attribution_sum_error": sum_errors[str(planet)],
            "unit_of_rules": "points of score",
            "bins": top.drop(columns=["planet_id", "top"]).to_dict("records"),
        }
        name = f"shap_symbolic_{planet}"
        (folder / f"{name}.json").write_text(json.dumps(finite_json(document), indent=1, allow_nan=False))
        draw_overlay(top, rules_of(table), str(planet), folder / f"{name}.png")
    penalty = table[rules_of(table)].sum(axis=1)
    total = float(penalty.sum())
    share = float(penalty[table["top"]].sum()) / total if total > 0 else 0.0
    return {"penalty_in_top_bins": share, "by_chance": float(table["top"].mean())}
