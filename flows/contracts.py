"""The data contracts as flows use them: a verdict per table, remembered; failures told; the report written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flows.figures import figures
from flows.published import link, markdown
from flows.quality import SuiteResult, load_suite, stop_on_failure, suite_names, validate
from flows.report import data_docs_pages, data_quality_page
from flows.run_directory import write_atomically
from flows.tables import light_curves_table, steps_table
from flows.tasks import remembered
from settings.tree import settings_hash
from spectramind.calibration.summary import QUANTITIES
from spectramind.provenance.digests import code_digest, digest_json

if TYPE_CHECKING:
    import pandas as pd

    from flows.workspace import Workspace
    from spectramind.data.layout import Split


def judge(work: Workspace, suite: str, table: pd.DataFrame, name: str | None = None) -> SuiteResult:
    """The verdict of `suite` on `table`, kept for the report under `name`.

    InputError if an expectation fails that must hold.
    """
    key = digest_json({"suite": load_suite(suite), "table": table.to_csv(), "code": code_digest("flows.quality")})
    document = remembered(
        f"contract {name or suite}", key, lambda: validate(suite, table).to_json(), work.layout.task_results
    )
    result = SuiteResult.from_json(document)
    if name is not None:
        result = replace(result, title=f"{result.title}, {name.removeprefix(f'{suite}_')}")
    work.verdicts[name or suite] = result
    stop_on_failure([result], work.dataset.root)
    for finding in result.failures:
        if finding.on_failure == "flag":
            work.run.journal.event(
                "flag",
                suite=name or suite,
                what=finding.subject,
                expected=finding.limits,
                meaning=finding.meaning,
                found=dict(zip(map(" ".join, finding.rows), finding.values, strict=True)),
            )
    return result


def flags(work: Workspace) -> list[dict[str, Any]]:
    """What the contracts doubt so far: one entry per failed `flag` expectation and row, with the row's names."""
    return [
        {
            **dict(zip(result.index, row, strict=True)),
            "suite": name,
            "what": finding.column,
            "expected": finding.limits,
            "found": value,
            "meaning": finding.meaning,
            "cure": finding.cure,
        }
        for name, result in work.verdicts.items()
        for finding in result.failures
        if finding.on_failure == "flag"
        for row, value in zip(finding.rows, finding.values, strict=True)
    ]


def planet_flags(work: Workspace, split: Split) -> dict[str, tuple[str, ...]]:
    """Planet to the words under which its prediction carries the doubts about its data."""
    words: dict[str, dict[str, None]] = {}
    remaining = {visit.key[:2] for visit in work.visits if visit.key not in work.set_aside}
    for kind, planet, visit in work.set_aside:
        if kind == split and (kind, planet) in remaining:
            words.setdefault(planet, {})[f"visit {visit} set aside"] = None
    for flag in flags(work):
        if flag.get("split") == split:
            place = f" ({flag['instrument']}, visit {flag['visit']})" if "instrument" in flag else ""
            words.setdefault(flag["planet_id"], {})[f"{flag['what']}{place}"] = None
    return {planet: tuple(found) for planet, found in words.items()}


def publish_data_quality(work: Workspace) -> None:
    """`calibration/data_quality.html` and `.json` and `calibration/data_docs/` of the run, with all verdicts so far; a
    link and the verdicts in Prefect's UI."""
    folder, pages = work.run.folder("calibration"), work.run.folder("calibration/data_docs")
    light_curves, steps = light_curves_table(work.statistics), steps_table(work.statistics)
    set_aside = [
        {"split": split, "planet_id": planet_id, "visit": visit, "reason": reason}
        for (split, planet_id, visit), reason in work.set_aside.items()
    ]
    document = {
        "data_revision": work.data_revision,
        "lineage": _lineage(work, light_curves),
        "planets": {split: len(planets) for split, planets in work.planets.items()},
        "quarantined": set_aside,
        "flagged": flags(work),
        "notes": {planet: list(notes) for planet, notes in work.dataset.issues.items()},
        "success": not set_aside and all(result.success for result in work.verdicts.values()),
        "suites": [replace(result, sections=()).to_json() for result in work.verdicts.values()],
        "quantities": {name: {"title": q.title, "unit": q.unit} for name, q in QUANTITIES.items()},
        "steps": json.loads(steps.to_json(orient="records")),
        "light_curves": json.loads(light_curves.to_json(orient="records")),
    }
    write_atomically(folder / "data_quality.json", json.dumps(document, indent=1))
    for name, page in data_docs_pages(work.verdicts).items():
        write_atomically(pages / f"{name}.html", page)
    if work.figures is None:
        work.figures = figures(light_curves, work.verdicts.get("calibrated_visits"))
    report = data_quality_page(work.dataset.root.name, document, work.verdicts, steps, light_curves, work.figures)
    write_atomically(folder / "data_quality.html", report)
    link("data-quality", folder / "data_quality.html", "Data-quality report")
    if work.verdicts:
        link("data-docs", pages / f"{next(iter(work.verdicts))}.html", "Data Docs")
    markdown("data-contracts", "What was expected of the data, and what was not met", _verdicts_in_markdown(work))


def _lineage(work: Workspace, light_curves: pd.DataFrame) -> dict[str, str]:
    """Digests of what the numbers come from."""
    return {
        "data set": work.data_revision,
        **{f"data set, {name}": digest for name, digest in work.metadata.items()},
        "calibrated cubes": digest_json(sorted(light_curves["cube"])),
        "suites": digest_json({name: load_suite(name) for name in suite_names()}),
        "settings": settings_hash(work.settings),
        "code": code_digest("spectramind", "flows"),
    }


def _verdicts_in_markdown(work: Workspace) -> str:
    lines = ["| table | rows | expectations | not met | rows set aside | rows flagged |", "|---|--:|--:|--:|--:|--:|"]
    for result in work.verdicts.values():
        doubted = {row for f in result.failures if f.on_failure == "flag" for row in f.rows}
        counts = (result.n_rows, len(result.findings), len(result.failures), len(result.quarantined), len(doubted))
        lines.append(f"| {result.title} | {' | '.join(map(str, counts))} |")
    lines += ["", f"{len(work.set_aside)} visits are set aside."]
    lines += [f"- planet {planet} ({split}), visit {visit}" for split, planet, visit in list(work.set_aside)[:20]]
    return "\n".join(lines)
