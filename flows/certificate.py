"""The coverage certificate that goes with a submission: how often held-out truths lay inside the intervals, whether the
test planets resemble the train planets, and what follows from that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields

import numpy as np
import pandas as pd

from flows.journal import finite_json
from flows.predict import Prediction
from flows.run_directory import OUT_OF_FOLD
from flows.spectra_files import read_predictions
from flows.train import Training
from flows.workspace import Workspace
from spectramind.calibration.summary import QUANTITIES
from spectramind.data.layout import Split
from spectramind.instruments import INSTRUMENTS
from spectramind.types import Floats, Star
from spectramind.uncertainty.certificate import ERROR_RATE, LevelCoverage, certify_coverage
from spectramind.uncertainty.exchangeability import ExchangeabilityTest, compare_populations

CERTIFICATE_JSON, CERTIFICATE_MD = "coverage_certificate.json", "coverage_certificate.md"

DIFFERENT = 0.01
"""p-value below which train and test planets are said to differ."""

STAR = tuple(field.name for field in fields(Star) if field.name != "planet_id")

CURVES = tuple(f"{instrument.name} {name}" for instrument in INSTRUMENTS for name in QUANTITIES)

WORDS = (
    "The coverage is that of train planets, each predicted and scaled by what was learned from others. That of test "
    "planets is the same only as far as they are drawn from the same population; the comparison sees gross differences "
    "in what is observed and none in what is not.",
    "Honest sigmas stay inside the limits of a test with a probability of 95 % (for the bins: all of them together). "
    "Inside does not prove that they are honest: the limits are as wide as the number of planets makes them.",
    "Coverage is an average over planets. Nothing is said of one planet, or of one kind of planet.",
    "Intervals per bin do not hold all bins of a planet at once. Those of mean ± factor sigma do, with the stated "
    "probability, by split-conformal theory: for planets that are exchangeable with the calibrating ones, and a "
    "predictor that has seen neither. Here every held-out planet has the predictor of its fold, and test planets one "
    "that has learned from all train planets, so that the theory holds nearly, not exactly.",
)
"""What may and what may not be concluded, in every certificate."""


def certificate_files(work: Workspace, training: Training, prediction: Prediction) -> dict[str, bytes]:
    """The certificate as JSON and for people, by file name."""
    held_out = read_predictions(training.path / OUT_OF_FOLD)
    levels = certify_coverage(held_out.mean, held_out.sigma, work.labels(held_out.planet_ids))
    fitted = tuple(planet for planet in prediction.spectra.planet_ids if planet not in prediction.fallback)
    comparison = _comparison(work, held_out.planet_ids, fitted)
    document = {
        "predictions": "out of fold, train planets",
        "planets": len(held_out.planet_ids),
        "error_rate": ERROR_RATE,
        "levels": [level.to_json() for level in levels],
        "exchangeability": None if comparison is None else asdict(comparison),
        "test_planets_by_fallback": list(prediction.fallback),
        "words": WORDS,
    }
    page = _page(len(held_out.planet_ids), levels, comparison, prediction.fallback)
    text = json.dumps(finite_json(document), indent=1, allow_nan=False) + "\n"
    return {CERTIFICATE_JSON: text.encode(), CERTIFICATE_MD: page.encode()}


def _comparison(work: Workspace, train: Sequence[str], test: Sequence[str]) -> ExchangeabilityTest | None:
    """Train and test planets by star table and light curves; None with less than two planets in either split."""
    if min(len(train), len(test)) < 2:
        return None
    first, second = _observed(work, "train", train), _observed(work, "test", test)
    return compare_populations(first, second, (*STAR, "visits", *CURVES), seed=work.settings.runtime.seed)


def _observed(work: Workspace, split: Split, planets: Sequence[str]) -> Floats:
    """Star table, number of visits, and the numbers of the light curves, means over visits: (planets, columns)."""
    curves = pd.DataFrame(
        [
            {"planet_id": s.planet_id, **{f"{name} {key}": float(numbers[key]) for key in QUANTITIES}}
            for s in work.statistics
            if s.split == split
            for name, numbers in s.summary.items()
        ]
    )
    numbers = curves.groupby("planet_id").mean().reindex(index=list(planets), columns=list(CURVES)).to_numpy(float)
    visits = {planet: len(work.dataset.visits(split, planet)) for planet in planets}
    stars = [work.dataset.star(split, planet) for planet in planets]
    return np.hstack([[[*(getattr(s, name) for name in STAR), visits[s.planet_id]] for s in stars], numbers])


def _page(
    n_planets: int,
    levels: Sequence[LevelCoverage],
    comparison: ExchangeabilityTest | None,
    fallback: Sequence[str],
) -> str:
    lines = [
        "# Coverage certificate",
        "",
        f"Share of true depths inside mean ± z sigma, {n_planets} train planets predicted out of fold.",
        "",
        "| level | instrument | observed | honest sigmas show | verdict |",
        "|--:|---|--:|--:|---|",
    ]
    for level in levels:
        for name, found in level.instruments.items():
            limits = f"{_percent(found.accept_low)} to {_percent(found.accept_high)}"
            lines.append(f"| {level.level:.0%} | {name} | {_percent(found.observed)} | {limits} | {found.verdict} |")
    lines += ["", "Each of the 283 bins, limits for all of them together (Bonferroni):", ""]
    lines += ["| level | lowest bin | highest bin | honest sigmas show | bins outside |", "|--:|--:|--:|--:|--:|"]
    for level in levels:
        observed = [found.observed for found in level.bins]
        limits = f"{_percent(level.bins[0].accept_low)} to {_percent(level.bins[0].accept_high)}"
        outside = sum(found.verdict != "consistent" for found in level.bins)
        extremes = f"{_percent(min(observed))} | {_percent(max(observed))}"
        lines.append(f"| {level.level:.0%} | {extremes} | {limits} | {outside} |")
    lines += ["", "All bins of a planet at once:", ""]
    lines += [
        "| level | planets wholly inside mean ± z sigma | factor that holds all bins | its coverage of new planets |"
    ]
    lines += ["|--:|--:|--:|--:|"]
    for level in levels:
        whole = level.simultaneous
        factor = "none is finite: too few planets" if whole.factor is None else f"{whole.factor:.2f}"
        law = whole.coverage_range
        span = "-" if law is None else f"{_percent(law[0])} to {_percent(law[1])}"
        lines.append(f"| {level.level:.0%} | {_percent(whole.observed)} | {factor} | {span} |")
    lines += ["", "## Are the test planets like the train planets?", "", *_comparison_lines(comparison)]
    if fallback:
        lines += ["", f"{len(fallback)} test planets have the mean of the train planets for want of usable data;"]
        lines += [f"nothing here speaks of them: {', '.join(fallback)}."]
    lines += ["", "## What this says, and what not", "", *(f"- {sentence}" for sentence in WORDS)]
    return "\n".join(lines) + "\n"


def _comparison_lines(comparison: ExchangeabilityTest | None) -> list[str]:
    if comparison is None:
        return ["Not tested: less than two usable planets in a split."]
    differ = comparison.p_value < DIFFERENT
    verdict = (
        "They differ: coverage of the train planets does not carry over." if differ else "No difference was found."
    )
    sets = f"{comparison.n_first} train and {comparison.n_second} test planets"
    lines = [
        f"{verdict} Energy distance of {sets} in {len(comparison.columns)} numbers of star table and light curves,",
        f"permutation p-value {comparison.p_value:.3g} (the least possible: {comparison.least_p_value:.2g}).",
    ]
    if not differ and comparison.least_p_value >= DIFFERENT:
        lines.append("With so few planets no difference could have been found.")
    named = [f"{name} (p {p:.2g})" for name, p in comparison.column_p_values.items() if p < DIFFERENT]
    if named:
        lines.append(f"By single numbers, corrected for their multitude: {', '.join(named[:10])}.")
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
