"""The limits that data sets suggest for the calibrated visits' suite, beside those it has.

    python benchmarks/expectation_limits.py RUN/calibration/data_quality.json … [--write]

Each file is of a run of `spectramind calibrate`; together they should span what is expected of a healthy instrument:
stars, drifts, cosmic rays, foreground. Light curves that miss another expectation do not count. For expectations
whose limits are `learned`, the largest value allowed is such that the 99th percentile lies half-way, in the logarithm,
between the median and the limit, and at most at half of the limit. Least values and all other limits are set by what
a number means, and left alone. `--write` puts the limits into the suite.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flows.quality import SUITES, load_suite

SUITE = "calibrated_visits"
PERCENTILE = 99
LEAST_MARGIN = 2.0


def learned_limit(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Median and percentile of positive `values`, and the largest value that is allowed, to two digits."""
    median, most = np.percentile(values, [50, PERCENTILE])
    return float(median), float(most), float(f"{most * max(most / median, LEAST_MARGIN):.1e}")


def healthy(report: dict[str, Any]) -> pd.DataFrame:
    """The light curves of a report that meet every expectation set by what a number means."""
    (verdict,) = (suite for suite in report["suites"] if suite["suite"] == SUITE)
    missed = [row for finding in verdict["findings"] if not finding["learned"] for row in finding["rows"]]
    table = pd.DataFrame(report["light_curves"])
    names = table[verdict["index"]].astype(str).agg(tuple, axis=1)
    return table[~names.isin(set(map(tuple, missed)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("reports", nargs="+", type=Path, help="data_quality.json of calibrated data sets")
    parser.add_argument("--write", action="store_true", help="put the limits into the suite")
    arguments = parser.parse_args()
    light_curves = pd.concat([healthy(json.loads(report.read_text())) for report in arguments.reports])
    suite = load_suite(SUITE)
    print(f"{len(light_curves)} healthy light curves of {len(arguments.reports)} data sets")
    print(f"{'number':<20}{'instrument':<12}{'median':>10}{f'{PERCENTILE} %':>10}{'limit':>10}{'learned':>10}")
    for expectation in suite["expectations"]:
        if expectation["meta"].get("limits") != "learned":
            continue
        kwargs = expectation["kwargs"]
        name, instrument = kwargs["column"], kwargs["row_condition"]["parameter"]
        values = light_curves.loc[light_curves["instrument"] == instrument, name].dropna().to_numpy(float)
        median, most, limit = learned_limit(values[values > 0])
        print(f"{name:<20}{instrument:<12}{median:>10.3g}{most:>10.3g}{kwargs['max_value']:>10.3g}{limit:>10.3g}")
        kwargs["max_value"] = limit
    if arguments.write:
        text = json.dumps(suite, indent=2, ensure_ascii=False) + "\n"
        (SUITES / f"{SUITE}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
