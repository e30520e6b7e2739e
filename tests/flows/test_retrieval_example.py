"""The example of the documentation reads what a run writes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.covariance_file import COVARIANCE, write_covariance
from flows.predict import PREDICTIONS
from flows.tables import spectra_frame
from spectramind.data.layout import WAVELENGTH_COLUMNS
from spectramind.types import Spectra
from spectramind.uncertainty.low_rank import LowRank

DOCUMENT = Path(__file__).parents[2] / "docs" / "uncertainty.md"
WAVELENGTHS = np.array([0.7, *np.geomspace(1.952, 3.895, 282)])


def test_the_documented_example_reads_what_a_run_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    stored = LowRank(1e-5 * rng.normal(size=(2, 283, 5)), 1e-10 * rng.uniform(0.5, 2.0, (2, 283)))
    covariance = stored.dense()
    sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    written = Spectra(("7", "1234"), rng.uniform(0.01, 0.02, (2, 283)), sigma)
    (tmp_path / "RUN" / "predictions").mkdir(parents=True)
    (tmp_path / "ROOT").mkdir()
    spectra_frame(written).to_parquet(tmp_path / "RUN" / "predictions" / PREDICTIONS, index=False)
    write_covariance(tmp_path / "RUN" / "predictions" / COVARIANCE, written.planet_ids, stored)
    wavelengths = pd.DataFrame([WAVELENGTHS], columns=list(WAVELENGTH_COLUMNS))
    wavelengths.to_csv(tmp_path / "ROOT" / "wavelengths.csv", index=False)
    block = r"```python\n(import numpy as np\nimport pandas.*?)```"
    example = re.search(block, DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    monkeypatch.chdir(tmp_path)
    exec(example.group(1), {})  # noqa: S102
    table = np.loadtxt("1234.dat")
    assert table.shape == (283, 4)
    np.testing.assert_allclose(table[:, 0], WAVELENGTHS, rtol=1e-9)
    np.testing.assert_allclose(table[:, 1], written.mean[1], rtol=1e-9)
    np.testing.assert_allclose(table[:, 2], sigma[1], rtol=1e-9)
    exported = np.loadtxt("1234_covariance.dat")
    np.testing.assert_allclose(exported, covariance[1], rtol=1e-6, atol=1e-16)
    np.testing.assert_allclose(np.sqrt(np.diag(exported)), table[:, 2], rtol=1e-6)
