"""The report of a run, `spectramind diagnose dashboard RUN`: one HTML file that needs no network, and its parts."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
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

SUMMARY, MANIFEST = "diagnostic_summary.json", "manifest.json"
NAME = "diagnostic_report_v{}.html"
SCHEMA = Path(__file__).parent / "diagnostic_summary.schema.json"
STEPS = 65534
"""Of a number between the least and the largest of its array; one more stands for a number that is missing."""
MOST_SAMPLES = 240
"""Of a light curve on the page; longer ones are averaged."""


@dataclass(frozen=True)
class Drawn:
    """A panel as JSON values: `document` for the page, `told` for the summary; and its `files` by name."""

    document: Mapping[str, Any]
    told: Mapping[str, Any]
    files: Mapping[str, bytes]


def write_dashboard(run: Path, out: Path | None = None, figures: bool = True) -> Path:
    """Write the report, its figures as PNG and JSON if `figures`, `diagnostic_summary.json` and, last, `manifest.json`
    into `out`, or the run's `diagnostics/`; return the report's path, which no report had before.

    Raises InputError if the run has no spectra, StoreError if `out` cannot be written.
    """
    data = read_run(run)
    drawn, failed = draw_panels(data, figures)
    data = replace(data, missing=(*data.missing, *failed))
    folder = out or run / "diagnostics"
    with store_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        written = [_write(folder / name, content) for one in drawn.values() for name, content in one.files.items()]
        summary = json.dumps(_summary(data, drawn), indent=1, allow_nan=False) + "\n"
        written.append(_write(folder / SUMMARY, summary.encode()))
        report = _write(folder / _next_name(folder), page(data, drawn).encode())
        manifest = _manifest(data, [*written, report])
        write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, allow_nan=False) + "\n")
    return report


def draw_panels(run: RunData, figures: bool = True) -> tuple[dict[str, Drawn], list[str]]:
    """What every panel shows of the run, by name, with its figures as PNG and JSON if `figures`; and one line for each
    panel that failed, so that a fault in one does not cost the others."""
    found: dict[str, Drawn] = {}
    failed = []
    taken = {SUMMARY, MANIFEST, LEDGER_CSV, LEDGER_JSON}
    for name, build in all_panels().items():
        try:
            panel = build(run)
            if panel is None:
                continue
            drawn = draw_panel(name, panel, figures)
            _require_own_names(drawn.files, taken)
        except Exception as error:  # panels from elsewhere may raise anything
            first_line = str(error).partition("\n")[0]
            failed.append(f"panel {name}: {type(error).__name__}: {first_line}")
            continue
        taken |= set(drawn.files)
        found[name] = drawn
    return found, failed


def draw_panel(name: str, panel: Panel, figures: bool = True) -> Drawn:
    """One panel, under the name that the page's links have.

    Raises InputError if its files have bad names, jsonschema's ValidationError if the summary cannot hold it.
    """
    told = {"title": panel.title, "figures": [chart.name for chart in panel.charts], "numbers": panel.numbers}
    told = finite_json(told)
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.validate(told, schema["properties"]["panels"]["additionalProperties"])
    charts = [finite_json(chart.to_json()) for chart in panel.charts]
    files = {file: text.encode() for file, text in panel.files.items()}
    if figures:
        for chart, values in zip(panel.charts, charts, strict=True):
            for file, content in (("png", chart.to_png()), ("json", json.dumps(values, allow_nan=False).encode())):
                _require_own_names([f"{chart.name}.{file}"], set(files))
                files[f"{chart.name}.{file}"] = content
    table = [finite_json(row) for row in panel.table]
    notes = [str(note) for note in panel.notes]
    document = {"name": name, "title": panel.title, "charts": charts, "table": table, "notes": notes}
    return Drawn(document, told, files)


def _require_own_names(names: Iterable[str], taken: Set[str]) -> None:
    """Raises InputError if a file of a panel has the name of another or is not in the report's folder."""
    reserved = NAME.split("{}")[0]
    bad = sorted(n for n in names if n in taken or n.startswith(reserved) or Path(n).name != n)
    if bad:
        raise InputError("files of the report", "names of their own", ", ".join(bad), "Rename the figure or file.")


def _next_name(folder: Path) -> str:
    """The report's name: its number is one above those that are there."""
    start, end = NAME.split("{}")
    numbers = [f.name.removeprefix(start).removesuffix(end) for f in folder.glob(NAME.format("*"))]
    return NAME.format(1 + max((int(number) for number in numbers if number.isdecimal()), default=0))


def page(run: RunData, panels: Mapping[str, Drawn]) -> str:
    """The whole report as one HTML document."""
    from plotly.offline import get_plotlyjs

    planets, numbers = packed_planets(run)
    document = {
        "planets": planets,
        "axis": [float(value) for value in run.axis],
        "axis_label": run.axis_label,
        "panels": [drawn.document for drawn in panels.values()],
    }
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return render(
        "dashboard.html",
        run=run,
        version=__version__,
        created=now(),
        splits=_planets_by_split(run),
        environment=environment_snapshot(),
        names={name: drawn.document["title"] for name, drawn in panels.items()},
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
        if row in run.attributions:
            entry["attribution"] = add(run.attributions[row])
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


def _compressed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def _planets_by_split(run: RunData) -> dict[str, int]:
    return {split: run.splits.count(split) for split in ("train", "test")}


def _summary(run: RunData, panels: Mapping[str, Drawn]) -> dict[str, Any]:
    summary: dict[str, Any] = finite_json(
        {
            "version": __version__,
            "created_utc": now(),
            "config_hash": run.summary.get("config_hash"),
            "data_rev": run.summary.get("data_rev"),
            "planets": _planets_by_split(run),
            "panels": {name: drawn.told for name, drawn in panels.items()},
            "missing": run.missing,
        }
    )
    return summary


def _manifest(run: RunData, files: list[Path]) -> dict[str, Any]:
    manifest: dict[str, Any] = finite_json(
        {
            "created_utc": now(),
            "version": __version__,
            "git_sha": environment_snapshot()["git_commit"],
            "config_hash": run.summary.get("config_hash"),
            "data_rev": run.summary.get("data_rev"),
            "dataset": run.dataset,
            "data": run.data_digests,
            "seed": run.seed,
            "metrics": run.metrics,
            "files": {file.name: {"sha256": file_digest(file), "bytes": file.stat().st_size} for file in files},
        }
    )
    return manifest


def _write(path: Path, content: bytes) -> Path:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
    return path
