"""The report of a run, `spectramind diagnose dashboard RUN`: one HTML file that needs no network, and its parts."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.journal import finite_json, now
from flows.ledger import LEDGER_CSV, LEDGER_JSON
from flows.panels import Panel, all_panels
from flows.report import render
from flows.run_data import RunData, read_run
from flows.run_directory import store_errors, write_atomically
from spectramind import __version__
from spectramind.errors import InputError
from spectramind.instruments import FGS1
from spectramind.provenance.digests import file_digest
from spectramind.provenance.environment import environment_snapshot
from spectramind.types import Floats

REPORT, SUMMARY, MANIFEST = "diagnostic_report_v1.html", "diagnostic_summary.json", "manifest.json"
SCHEMA = Path(__file__).parent / "diagnostic_summary.schema.json"
STEPS = 65534
"""Of a number between the least and the largest of its array; one more stands for a number that is missing."""
MOST_SAMPLES = 240
"""Of a light curve on the page; longer ones are averaged."""


def write_dashboard(run: Path, out: Path | None = None) -> Path:
    """Write the report, its figures as PNG and JSON, `diagnostic_summary.json` and, last, `manifest.json` into `out`,
    or the run's `diagnostics/`; return the report's path.

    Raises InputError if the run has no spectra, StoreError if `out` cannot be written.
    """
    data = read_run(run)
    folder = out or run / "diagnostics"
    found: dict[str, Panel] = {}
    missing = list(data.missing)
    for name, build in all_panels().items():
        panel = build(data)
        if panel is not None:
            found[name] = panel
    _require_distinct(found)
    written: list[Path] = []
    with store_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        for panel in found.values():
            for chart in panel.charts:
                written.append(_write(folder / f"{chart.name}.png", chart.to_png()))
                document = json.dumps(finite_json(chart.to_json()), allow_nan=False)
                written.append(_write(folder / f"{chart.name}.json", document.encode()))
            written += [_write(folder / name, text.encode()) for name, text in panel.files.items()]
        summary = _summary(data, found, missing)
        _check(summary)
        written.append(_write(folder / SUMMARY, (json.dumps(summary, indent=1, allow_nan=False) + "\n").encode()))
        report = _write(folder / REPORT, page(data, found).encode())
        manifest = _manifest(data, folder, [*written, report])
        write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, allow_nan=False) + "\n")
    return report


def _require_distinct(panels: Mapping[str, Panel]) -> None:
    """Raises InputError if two panels, or a panel and the run, would write the same file."""
    names = [REPORT, SUMMARY, MANIFEST, LEDGER_CSV, LEDGER_JSON]
    for panel in panels.values():
        names += [f"{chart.name}.{kind}" for chart in panel.charts for kind in ("png", "json")] + list(panel.files)
    twice = sorted({name for name in names if names.count(name) > 1 or Path(name).name != name})
    if twice:
        cure = "Rename the figure or file of your own panel."
        raise InputError("panels of the report", "file names of their own", ", ".join(twice), cure)


def page(run: RunData, panels: Mapping[str, Panel]) -> str:
    """The whole report as one HTML document."""
    from plotly.offline import get_plotlyjs

    planets, numbers = packed_planets(run)
    document = {
        "planets": planets,
        "axis": [float(value) for value in run.axis],
        "axis_label": run.axis_label,
        "panels": [_panel_json(name, panel) for name, panel in panels.items()],
    }
    text = json.dumps(finite_json(document), allow_nan=False, separators=(",", ":"))
    splits = {split: run.splits.count(split) for split in ("train", "test")}
    return render(
        "dashboard.html",
        run=run,
        version=__version__,
        created=now(),
        splits=splits,
        environment=environment_snapshot(),
        names={name: panel.title for name, panel in panels.items()},
        data=_compressed(text.encode()),
        numbers=_compressed(numbers),
        plotly=_compressed(get_plotlyjs().encode()),
    )


def packed_planets(run: RunData) -> tuple[list[dict[str, Any]], bytes]:
    """One entry per planet, and the numbers that the entries point to: 16 bits each, little-endian. An array is
    [first, length, least, step]: value = least + step times number, 65535 for a missing one."""
    blocks: list[NDArray[np.uint16]] = []
    length = 0

    def add(values: Floats) -> list[float]:
        nonlocal length
        finite = values[np.isfinite(values)]
        least = float(finite.min()) if finite.size else 0.0
        step = (float(finite.max()) - least) / STEPS if finite.size else 0.0
        scaled = np.where(np.isfinite(values), (values - least) / (step or 1.0), STEPS + 1)
        blocks.append(np.rint(scaled).astype("<u2"))
        length += values.size
        return [length - values.size, values.size, least, step]

    entries = []
    for row, planet in enumerate(run.planet_ids):
        entry: dict[str, Any] = {"id": planet, "split": run.splits[row], "flags": list(run.flags.get(row, ()))}
        entry |= {"mean": add(run.mean[row]), "sigma": add(run.sigma[row])}
        if np.isfinite(run.truth[row]).any():
            entry["truth"] = add(run.truth[row])
        entry["curves"] = [
            {
                "name": f"{curve.instrument}, visit {curve.visit}",
                "dispersed": curve.instrument != FGS1.name,
                "hours": add(_fewer(curve.hours)),
                "data": add(_fewer(curve.data)),
                "model": add(_fewer(curve.model)),
            }
            for curve in run.curves.get(row, ())
        ]
        entries.append(entry)
    return entries, b"".join(block.tobytes() for block in blocks)


def _fewer(values: Floats) -> Floats:
    """Means of as many neighbours as are needed to stay below the most samples that the page shows."""
    group = -(-values.size // MOST_SAMPLES)
    whole = values.size // group * group
    means: Floats = values[:whole].reshape(-1, group).mean(axis=1)
    return means


def _panel_json(name: str, panel: Panel) -> dict[str, Any]:
    return {
        "name": name,
        "title": panel.title,
        "charts": [chart.to_json() for chart in panel.charts],
        "table": [dict(row) for row in panel.table],
        "notes": list(panel.notes),
        "images": {name: base64.b64encode(data).decode() for name, data in panel.images.items()},
    }


def _compressed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def _summary(run: RunData, panels: Mapping[str, Panel], missing: list[str]) -> dict[str, Any]:
    summary: dict[str, Any] = finite_json(
        {
            "version": __version__,
            "created_utc": now(),
            "config_hash": run.summary.get("config_hash"),
            "data_rev": run.summary.get("data_rev"),
            "planets": {split: run.splits.count(split) for split in ("train", "test")},
            "panels": {
                name: {"title": panel.title, "figures": [chart.name for chart in panel.charts], **_numbers(panel)}
                for name, panel in panels.items()
            },
            "missing": missing,
        }
    )
    return summary


def _numbers(panel: Panel) -> dict[str, Any]:
    return {"numbers": dict(panel.numbers)} if panel.numbers else {}


def _check(summary: Mapping[str, Any]) -> None:
    """Raises ValidationError if own panels have put something else than JSON values there."""
    import jsonschema

    jsonschema.validate(summary, json.loads(SCHEMA.read_text(encoding="utf-8")))


def _manifest(run: RunData, folder: Path, files: list[Path]) -> dict[str, Any]:
    environment = environment_snapshot()
    manifest: dict[str, Any] = finite_json(
        {
            "created_utc": now(),
            "version": __version__,
            "git_sha": environment["git_commit"],
            "config_hash": run.summary.get("config_hash"),
            "data_rev": run.summary.get("data_rev"),
            "data": dict(run.data_digests),
            "seed": run.seed,
            "metrics": dict(run.metrics),
            "files": {
                str(file.relative_to(folder)): {"sha256": file_digest(file), "bytes": file.stat().st_size}
                for file in files
            },
        }
    )
    return manifest


def _write(path: Path, content: bytes) -> Path:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
    return path
