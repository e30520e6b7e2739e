"""The data contracts as flows use them: a verdict per table, remembered; failures told; the report written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from flows.quality import SuiteResult, load_suite, stop_on_failure, validate
from flows.report import data_docs_pages, data_quality_page, noise_figure
from flows.tables import light_curves_table, steps_table
from flows.tasks import remembered
from spectramind.provenance.digests import code_digest, digest_json

if TYPE_CHECKING:
    import pandas as pd

    from flows.workspace import Workspace


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
        if finding.on_failure == "report":
            names = ", ".join(" ".join(row) for row in finding.rows[:3])
            more = f" and {len(finding.rows) - 3} more" if len(finding.rows) > 3 else ""
            message = f"{suite}: {finding.column} is not {finding.limits} ({names}{more}): {finding.meaning}"
            work.run.journal.event("warning", message=message)
    return result


def publish_data_quality(work: Workspace) -> None:
    """`calibration/data_quality.html` and `.json` and `calibration/data_docs/` of the run, with all verdicts so far."""
    folder, pages = work.run.folder("calibration"), work.run.folder("calibration/data_docs")
    light_curves, steps = light_curves_table(work.statistics), steps_table(work.statistics)
    if work.noise_figure is None:
        work.noise_figure = noise_figure(light_curves)
    rows = [
        {"split": split, "planet_id": planet_id, "visit": visit, "reason": reason}
        for (split, planet_id, visit), reason in work.set_aside.items()
    ]
    document = {
        "data_revision": work.data_revision,
        "planets": {split: len(planets) for split, planets in work.planets.items()},
        "quarantined": rows,
        "notes": {planet: list(notes) for planet, notes in work.dataset.issues.items()},
        "success": not rows and all(result.success for result in work.verdicts.values()),
        "suites": [replace(result, sections=()).to_json() for result in work.verdicts.values()],
        "steps": json.loads(steps.to_json(orient="records")),
        "light_curves": json.loads(light_curves.to_json(orient="records")),
    }
    (folder / "data_quality.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    for name, page in data_docs_pages(work.verdicts).items():
        (pages / f"{name}.html").write_text(page, encoding="utf-8")
    report = data_quality_page(work.dataset.root.name, document, work.verdicts, steps, light_curves, work.noise_figure)
    (folder / "data_quality.html").write_text(report, encoding="utf-8")
