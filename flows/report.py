"""The data-quality report: one HTML file with all that it shows inside, readable without a network.

Names of planets and files come from outside: the template engine escapes everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectramind.calibration.summary import QUANTITIES

if TYPE_CHECKING:
    import pandas as pd

    from flows.figures import Figures
    from flows.quality import SuiteResult

TEMPLATES = Path(__file__).parent / "templates"
MOST_ROWS = 400
"""Light curves listed one by one; the JSON beside the page has them all."""


def data_quality_page(
    dataset: str,
    document: Mapping[str, Any],
    verdicts: Mapping[str, SuiteResult],
    steps: pd.DataFrame,
    light_curves: pd.DataFrame,
    pictures: Figures,
) -> str:
    """The page for the verdicts, the kill-chain's `steps`, the `light_curves` table and the `figures` of a run."""
    chains = {name: rows.to_dict("records") for name, rows in steps.groupby("instrument", sort=False)}
    worst = light_curves.sort_values("noise_over_photon", ascending=False) if len(light_curves) else light_curves
    doubts: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for flag in document["flagged"]:
        if "planet_id" in flag:
            doubts.setdefault((flag["planet_id"], flag.get("split", "test")), []).append(flag)
    failures = [finding for verdict in verdicts.values() for finding in verdict.failures]
    return render(
        "data_quality.html",
        dataset=dataset,
        document=document,
        verdicts=verdicts,
        failures=sorted(failures, key=lambda finding: finding.on_failure == "flag"),
        doubts=sorted(doubts.items(), key=lambda item: -len(item[1])),
        chains=chains,
        pictures=pictures,
        quantities=QUANTITIES,
        curves=worst.head(MOST_ROWS).to_dict("records"),
        n_curves=len(light_curves),
    )


def data_docs_pages(verdicts: Mapping[str, SuiteResult]) -> dict[str, str]:
    """One page per verdict, by name, with the sections that Great Expectations makes of it."""
    return {name: render("data_docs.html", verdicts=verdicts, page=verdict) for name, verdict in verdicts.items()}


def render(template: str, **values: Any) -> str:
    """The page that `flows/templates/<template>` makes of `values`, all text escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["significant"] = _significant
    environment.filters["words"] = _words
    return environment.get_template(template).render(values)


def _significant(value: float) -> str:
    if value != value:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _words(column: str) -> str:
    """A column of the light curves as people say it."""
    name = column.removeprefix("z_")
    if name not in QUANTITIES:
        return column
    title, unit = QUANTITIES[name].title, QUANTITIES[name].unit
    if name != column:
        return f"{title} against the others (sigma)"
    return title if unit == "1" else f"{title} ({unit})"
