"""Which registered model is the champion: a challenger must beat it and, if `gated`, recover injected spectra.

The decision and what it rests on are in `promotion.json` of the run, and a note in Prefect's UI.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.published import markdown
from flows.run_directory import OUT_OF_FOLD, PROMOTION, RECOVERY
from flows.spectra_files import read_predictions
from spectramind.errors import InputError
from spectramind.metrics.score import paired_bootstrap, reference_of, score_parts
from spectramind.submission.table import in_order

if TYPE_CHECKING:
    from flows.train import Training
    from flows.workspace import Workspace


Decision = dict[str, Any]
"""`promoted`, `refused` (why not, one sentence each) and the evidence: `held_out`, `recovery`."""


def decide(work: Workspace, training: Training, champion: Path | None) -> Decision:
    """Whether `training` should replace the champion, whose model is in the folder `champion`; None: there is none.

    The cheaper test comes first; the second is made only of a challenger that passes the first. Injected planets that
    cannot be used refuse it; a store that fails or a budget that is spent ends the run, and the same command goes on.
    """
    work.run.discard(RECOVERY)
    rule = work.settings.tracking.promotion
    refused = ["tracking.promotion=off"] if rule == "off" else []
    held_out = recovery = None
    if not refused and champion is not None:
        held_out = compared(work, training.path, champion)
        if "low" not in held_out:
            refused.append("the champion was not trained on these planets: there is nothing to compare on")
        elif held_out["low"] <= 0:
            refused.append("the score on held-out planets is not better than the champion's beyond noise")
    if not refused and rule == "gated":
        from flows.injection import injection_recovery

        try:
            rows = injection_recovery(work, training)
        except InputError as error:
            refused.append(f"injection-recovery did not finish: {error}")
            work.warn(refused[-1])
        else:
            recovery = [asdict(row) for row in rows]
            refused += [problem for row in rows for problem in row.problems]
    return {
        "promoted": not refused,
        "rule": rule,
        "challenger": training.digest,
        "refused": refused,
        "held_out": held_out,
        "recovery": recovery,
    }


def compared(work: Workspace, checkpoint: Path, champion: Path) -> dict[str, Any]:
    """Scores of both on the same held-out planets, and the difference with its 95 % limits over the planets drawn
    (paired bootstrap). Only the numbers of planets if they were trained on different ones."""
    new = read_predictions(checkpoint / OUT_OF_FOLD)
    found = next(champion.rglob(OUT_OF_FOLD), None)  # a model that was registered by hand may have none
    old = None if found is None else read_predictions(found)
    if old is None or set(new.planet_ids) != set(old.planet_ids):
        return {"planets": len(new.planet_ids), "planets_of_champion": 0 if old is None else len(old.planet_ids)}
    labels = work.labels(new.planet_ids)
    old = in_order(old, new.planet_ids)
    ours, theirs = (score_parts(s.mean, s.sigma, labels, *reference_of(labels)) for s in (new, old))
    difference = paired_bootstrap(ours.by_planet, theirs.by_planet)
    return {
        "planets": len(new.planet_ids),
        "challenger_score": ours.score,
        "champion_score": theirs.score,
        **asdict(difference),
    }


def publish(work: Workspace, decision: Decision) -> None:
    """`promotion.json` of the run and a note in Prefect's UI."""
    work.run.write_json(PROMOTION, decision)
    verdict = "is the champion" if decision["promoted"] else f"stays a candidate: {'; '.join(decision['refused'])}"
    markdown("promotion", f"Model version {decision['version']} {verdict}", in_markdown(decision))
    work.console.print(f"Model version {decision['version']} {verdict}", soft_wrap=True, highlight=False)


def in_markdown(decision: Mapping[str, Any]) -> str:
    """The decision with its evidence as tables."""
    champion = decision["champion"]
    against = f"champion: version {champion}" if champion else "there was no champion"
    lines = [
        f"**Version {decision['version']} {'is the new champion' if decision['promoted'] else 'stays a candidate'}** "
        f"({against}; tracking.promotion={decision['rule']})",
        "",
        *(f"- refused: {reason}" for reason in decision["refused"]),
        "",
    ]
    held_out = decision["held_out"]
    if held_out is not None and "low" in held_out:
        difference = f"{held_out['difference']:+.4f} | {held_out['low']:+.4f} to {held_out['high']:+.4f}"
        lines += [
            "| held-out planets | challenger | champion | difference | 95 % |",
            "|--:|--:|--:|--:|--:|",
            f"| {held_out['planets']} | {held_out['challenger_score']:.4f} | {held_out['champion_score']:.4f} "
            f"| {difference} |",
            "",
        ]
    if decision["recovery"] is not None:
        lines += [
            "| injected into | planets | mean error (ppm) | limit (ppm) | errors / sigma (rms) | ± 2 standard errors |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        lines += [
            f"| {row['instrument']} | {row['planets']} | {row['bias_ppm']:+.1f} ± {row['bias_error_ppm']:.1f} "
            f"| {row['bias_limit_ppm']:g} | {row['z_rms']:.2f} | {row['z_low']:.2f} to {row['z_high']:.2f} |"
            for row in decision["recovery"]
        ]
    return "\n".join(lines)
