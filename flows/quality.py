"""Data contracts: Great Expectations suites judged on ordinary tables. The only module that imports Great Expectations.

A suite is a JSON file in `expectations/`. Each expectation's `meta` says what a failure means to this project:

    on_failure   stop        the data set cannot be used: the flow ends with exit code 2
                 quarantine  the planet of each failing row is set aside by name
                 flag        the planet of each failing row stays in and carries a flag
    meaning      one sentence: what is wrong when the expectation fails
    cure         one sentence: what to do about it
    limits       learned     from data sets, by `benchmarks/expectation_limits.py`; left out where physics sets them
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import expectations
from spectramind.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SUITES = Path(expectations.__file__).parent
"""The folder of the suites."""

INDEX_COLUMNS = ("planet_id", "split", "visit", "instrument")
"""Columns that name a row, where the table has them."""

_NOISE = re.compile(r" Data asset: None<br>")
_LINK = re.compile(r'<a href="\.\./[^"]*"[^>]*>(.*?)</a>', re.DOTALL)

Row = tuple[str, ...]
"""The values of a failing row's index columns."""


@dataclass(frozen=True)
class Finding:
    """The verdict on one expectation; `rows` name the failing rows by the table's index columns."""

    check: str
    column: str
    limits: str
    observed: str
    success: bool
    on_failure: str
    rows: tuple[Row, ...]
    meaning: str
    cure: str
    values: tuple[str, ...] = ()
    """what was found in each of `rows`"""
    instrument: str = ""
    """the instrument whose rows are judged; empty for all"""
    between: tuple[float | None, float | None] = (None, None)
    """the limits as numbers, where they are numbers"""
    learned: bool = False
    """whether the limits come from data sets"""

    @property
    def subject(self) -> str:
        """What is judged, in words."""
        return f"{self.column} of {self.instrument}" if self.instrument else self.column

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Finding:
        lists = {name: tuple(document[name]) for name in ("values", "between")}
        return cls(**{**document, **lists, "rows": tuple(map(tuple, document["rows"]))})


@dataclass(frozen=True)
class SuiteResult:
    """The verdict on one table of `n_rows` rows, each named by the columns `index`.

    `sections` are the parts of Great Expectations' Data Docs page of the verdict: heading and HTML.
    """

    suite: str
    title: str
    n_rows: int
    index: tuple[str, ...]
    findings: tuple[Finding, ...]
    sections: tuple[tuple[str, str], ...] = ()

    @property
    def success(self) -> bool:
        return all(finding.success for finding in self.findings)

    @property
    def failures(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.success)

    @property
    def quarantined(self) -> dict[Row, str]:
        """Row to reason, for every row that fails a `quarantine` expectation."""
        reasons: dict[Row, str] = {}
        for finding in self.failures:
            if finding.on_failure == "quarantine":
                for row, value in zip(finding.rows, finding.values, strict=True):
                    found = f"expected {finding.column} {finding.limits}, found {value}"
                    reasons.setdefault(row, f"{found}. {finding.meaning} {finding.cure}")
        return reasons

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SuiteResult:
        findings = tuple(Finding.from_json(finding) for finding in document["findings"])
        sections = tuple((heading, html) for heading, html in document["sections"])
        index = tuple(document["index"])
        return cls(document["suite"], document["title"], document["n_rows"], index, findings, sections)


def load_suite(name: str) -> dict[str, Any]:
    """The suite `name` as written in `expectations/<name>.json`."""
    document: dict[str, Any] = json.loads((SUITES / f"{name}.json").read_text(encoding="utf-8"))
    return document


def suite_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in SUITES.glob("*.json")))


def validate(name: str, table: pd.DataFrame) -> SuiteResult:
    """Judge `table` by the suite `name`.

    A column that the suite needs and the table lacks fails its expectations for every row.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    document = load_suite(name)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    suite = gx.ExpectationSuite(name=name, expectations=document["expectations"], meta=document["meta"])
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})
    index = [column for column in INDEX_COLUMNS if column in table.columns]
    result_format = {"result_format": "COMPLETE", "unexpected_index_column_names": index}
    validation = batch.validate(suite, result_format=result_format)
    verdict: dict[str, Any] = validation.to_json_dict()  # type: ignore[no-untyped-call]
    order = {_identity(expectation): place for place, expectation in enumerate(document["expectations"])}
    results = sorted(verdict["results"], key=lambda result: order[_identity(result["expectation_config"])])
    findings = tuple(_finding(result, table, index) for result in results)
    return SuiteResult(name, document["meta"]["title"], len(table), tuple(index), findings, _data_docs(validation))


def stop_on_failure(results: Iterable[SuiteResult], where: str | Path) -> None:
    """Raise InputError for the first failed `stop` expectation."""
    for result in results:
        for finding in result.failures:
            if finding.on_failure == "stop":
                subject = ", ".join(" ".join(row) for row in finding.rows[:5]) or result.suite
                raise InputError(
                    where,
                    f"{finding.column} {finding.limits}",
                    f"{finding.observed} ({subject})",
                    f"{finding.meaning} {finding.cure}",
                )


def _data_docs(validation: Any) -> tuple[tuple[str, str], ...]:
    """Heading and HTML of each section of the Data Docs page, without links to pages that are not made.

    Great Expectations' own page around them fetches its styles and scripts from the network.
    """
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaSectionView

    for outcome in validation.results:
        # The table's values reach the page as they are; the query is for interactive use.
        outcome.result = _escaped({k: v for k, v in outcome.result.items() if k != "unexpected_index_query"})
    view = DefaultJinjaSectionView()
    page = ValidationResultsPageRenderer(run_info_at_end=True).render(validation).to_json_dict()
    sections = []
    for number, section in enumerate(page["sections"], start=1):
        if section["section_name"] != "Run Info":
            text = view.render({"section": section, "section_loop": {"index": number}})  # type: ignore[no-untyped-call]
            sections.append((section["section_name"], _NOISE.sub("", _LINK.sub(r"\1", text))))
    return tuple(sections)


def _escaped(value: Any) -> Any:
    """`value` with every text inside it made safe for HTML."""
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value


def _identity(expectation: Mapping[str, Any]) -> tuple[str, str]:
    kwargs = {key: value for key, value in expectation["kwargs"].items() if key != "batch_id"}
    numbers_as_float = {
        key: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for key, value in kwargs.items()
    }
    return expectation["type"], json.dumps(numbers_as_float, sort_keys=True)


def _finding(result: Mapping[str, Any], table: pd.DataFrame, index: Sequence[str]) -> Finding:
    config = result["expectation_config"]
    kwargs, meta = config["kwargs"], config["meta"]
    columns = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
    columns += kwargs.get("column_list", [])
    instrument = kwargs.get("row_condition", {}).get("parameter", "")
    judged = table[table["instrument"] == instrument] if instrument else table
    missing = [column for column in columns if column not in table.columns]
    if missing:
        observed = f"no column {', '.join(missing)}"
        failing = {tuple(map(str, row)): observed for row in judged[list(index)].itertuples(index=False)}
    else:
        failing = _failing_rows(result["result"], index, columns)
        observed = _observed(result["result"], judged, columns)
    if result["success"]:
        failing = {}
    return Finding(
        check=config["type"].removeprefix("expect_").replace("_", " "),
        column=" and ".join(columns) or "table",
        limits=_limits(config["type"], kwargs),
        observed=observed,
        success=bool(result["success"]),
        on_failure=meta["on_failure"],
        rows=tuple(failing),
        meaning=meta["meaning"],
        cure=meta["cure"],
        values=tuple(failing.values()),
        instrument=instrument,
        learned=meta.get("limits") == "learned",
        between=(kwargs.get("min_value"), kwargs.get("max_value")),
    )


def _failing_rows(result: Mapping[str, Any], index: Sequence[str], columns: Sequence[str]) -> dict[Row, str]:
    """Failing row to what was found in it."""
    return {
        tuple(str(row[column]) for column in index): ", ".join(_shown(row[column]) for column in columns)
        for row in result.get("unexpected_index_list") or []
    }


def _shown(value: Any) -> str:
    if value is None or value != value:
        return "nothing"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _observed(result: Mapping[str, Any], table: pd.DataFrame, columns: Sequence[str]) -> str:
    if "observed_value" in result:
        value = result["observed_value"]
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    if len(columns) == 1 and table[columns[0]].dtype.kind in "iuf" and len(table):
        values = table[columns[0]].astype(float)
        return f"{values.min():.4g} … {values.median():.4g} … {values.max():.4g}"
    unexpected = result.get("unexpected_count", 0)
    return "all as expected" if not unexpected else f"{unexpected} of {len(table)} rows differ"


def _limits(kind: str, kwargs: Mapping[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    unit = " rows" if "row_count" in kind else ""
    if low is not None and high is not None:
        above = ">" if kwargs.get("strict_min") else "≥"
        below = "<" if kwargs.get("strict_max") else "≤"
        text = f"{above} {low:g} and {below} {high:g}{unit}"
    elif low is not None:
        text = f"{'>' if kwargs.get('strict_min') else '≥'} {low:g}{unit}"
    elif high is not None:
        text = f"{'<' if kwargs.get('strict_max') else '≤'} {high:g}{unit}"
    elif "value_set" in kwargs:
        text = "in {" + ", ".join(map(str, kwargs["value_set"])) + "}"
    elif "regex" in kwargs:
        text = f"matches {kwargs['regex']}"
    elif kind.endswith("not_be_null"):
        text = "present"
    elif kind.endswith("unique"):
        text = "unique"
    elif "value" in kwargs:
        text = f"= {kwargs['value']}{unit}"
    else:
        text = "exists"
    mostly = kwargs.get("mostly")
    return f"{text} in {100 * mostly:g} % of rows" if mostly is not None else text
