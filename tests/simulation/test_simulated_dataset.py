"""Data sets as written: layout, determinism, refusal, truth outside the root."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from spectramind.errors import InputError
from spectramind.simulation.dataset import SimulatedDataset, draw_planets, simulate_dataset
from spectramind.simulation.files import write_calibration
from spectramind.simulation.options import SimulationOptions

SMALL = SimulationOptions(
    train_planets=2, test_planets=1, airs_frames=24, fgs1_frames=60, two_visit_fraction=0.5, cosmic_ray_rate=1e-5
)
SEED = 4
REAL_DATA = os.environ.get("SPECTRAMIND_REAL_DATA")
KINDS = {"dark": "double", "dead": "bool", "flat": "double", "linear_corr": "double", "read": "double"}


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> SimulatedDataset:
    calls: list[tuple[int, int]] = []
    root = tmp_path_factory.mktemp("simulated") / "set"
    result = simulate_dataset(root, SMALL, SEED, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    return result


def test_metadata_have_the_challenge_s_form(simulated: SimulatedDataset) -> None:
    root = simulated.root
    axis = pq.read_table(root / "axis_info.parquet")
    assert axis.column_names == [
        "AIRS-CH0-axis0-h",
        "AIRS-CH0-axis2-um",
        "AIRS-CH0-integration_time",
        "FGS1-axis0-h",
    ]
    frame = axis.to_pandas()
    assert len(frame) == 356  # the longest column: fewer frames than detector columns here
    assert list(frame.notna().sum()) == [24, 356, 24, 60]
    assert axis.column(0).null_count == 0  # padded with NaN, not null
    np.testing.assert_allclose(frame["AIRS-CH0-axis0-h"][:2] * 3600, [0.1, 0.2])
    np.testing.assert_allclose(frame["AIRS-CH0-integration_time"][:2], [0.1, 4.5])
    wavelengths = pd.read_csv(root / "wavelengths.csv")
    assert list(wavelengths.columns) == [f"wl_{i}" for i in range(1, 284)]
    np.testing.assert_array_equal(wavelengths.values[0, 1:], frame["AIRS-CH0-axis2-um"][39:321][::-1])
    adc = pd.read_csv(root / "adc_info.csv")
    assert list(adc.columns) == ["FGS1_adc_offset", "FGS1_adc_gain", "AIRS-CH0_adc_offset", "AIRS-CH0_adc_gain"]
    stars = pd.read_csv(root / "train_star_info.csv")
    assert list(stars.columns) == ["planet_id", "Rs", "Ms", "Ts", "Mp", "e", "P", "sma", "i"]
    assert stars.planet_id.is_monotonic_increasing
    assert list(pd.read_csv(root / "train.csv").columns) == ["planet_id", *wavelengths.columns]
    sample = pd.read_csv(root / "sample_submission.csv")
    assert sample.shape == (1, 567)
    assert list(sample.columns[284:286]) == ["sigma_1", "sigma_2"]
    assert [str(planet) for planet in sample.planet_id] == list(simulated.test_ids)


def test_frames_have_the_challenge_s_form(simulated: SimulatedDataset) -> None:
    shapes = {"AIRS-CH0": (24, 32, 356), "FGS1": (60, 32, 32)}
    visits = 0
    for split, ids in (("train", simulated.train_ids), ("test", simulated.test_ids)):
        for planet_id in ids:
            folder = simulated.root / split / planet_id
            for path in folder.glob("*_signal_*.parquet"):
                instrument, visit = path.stem.split("_signal_")
                visits += instrument == "FGS1"
                frames, rows, columns = shapes[instrument]
                check_file(path, frames, rows * columns, "uint16")
                for kind, dtype in KINDS.items():
                    n = 6 * rows if kind == "linear_corr" else rows
                    check_file(folder / f"{instrument}_calibration_{visit}" / f"{kind}.parquet", n, columns, dtype)
    assert visits == simulated.visits


def check_file(path: Path, rows: int, columns: int, dtype: str) -> None:
    file = pq.ParquetFile(path)
    meta, schema = file.metadata, file.schema_arrow
    assert (meta.num_rows, meta.num_columns, meta.num_row_groups) == (rows, columns, 1)
    assert schema.names == [f"column_{i}" for i in range(columns)]
    assert {str(kind) for kind in schema.types} == {dtype}
    assert meta.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.data
@pytest.mark.skipif(REAL_DATA is None, reason="SPECTRAMIND_REAL_DATA is not set")
def test_calibration_files_have_the_real_files_schema(tmp_path: Path, simulated: SimulatedDataset) -> None:
    real = next(Path(str(REAL_DATA)).glob("planet_*/"))
    ours = simulated.root / "train" / simulated.train_ids[0]
    for instrument in ("AIRS-CH0", "FGS1"):
        for kind in KINDS:
            name = f"{instrument}_calibration_0/{kind}.parquet"
            expected, found = pq.ParquetFile(real / name), pq.ParquetFile(ours / name)
            assert found.schema_arrow.remove_metadata().equals(expected.schema_arrow.remove_metadata())
            assert found.metadata.num_rows == expected.metadata.num_rows


def test_truth_lies_beside_the_root(simulated: SimulatedDataset) -> None:
    assert simulated.truth == simulated.root.parent / "set_truth"
    truth = pd.read_csv(simulated.truth / "test.csv")
    assert [str(planet) for planet in truth.planet_id] == list(simulated.test_ids)
    assert truth.shape == (1, 284)
    names = {path.name for path in simulated.root.rglob("*.csv")}
    assert names == {
        *("adc_info.csv", "wavelengths.csv", "train.csv", "train_star_info.csv"),
        *("test_star_info.csv", "sample_submission.csv"),
    }
    parameters = pd.read_parquet(simulated.truth / "parameters.parquet")
    assert len(parameters) == simulated.visits
    assert set(parameters.planet_id) == {*simulated.train_ids, *simulated.test_ids}
    assert sorted(path.name for path in simulated.root.parent.iterdir()) == ["set", "set_truth"]


def test_content_depends_on_neither_workers_nor_count(simulated: SimulatedDataset, tmp_path: Path) -> None:
    parallel = simulate_dataset(tmp_path / "set", SMALL, SEED, workers=2)
    assert contents(parallel.root) == contents(simulated.root)
    assert contents(parallel.truth) == contents(simulated.truth)
    more = draw_planets(SEED, "train", replace(SMALL, train_planets=5), None)
    labels = pd.read_csv(simulated.root / "train.csv", index_col="planet_id")
    again = {planet.planet_id: planet.depth for planet in more}
    for planet_id in simulated.train_ids:
        np.testing.assert_allclose(again[planet_id], labels.loc[int(planet_id)], rtol=1e-12)
    other = draw_planets(SEED + 1, "train", SMALL, None)
    assert not {planet.planet_id for planet in other} & set(simulated.train_ids)


def test_existing_content_is_refused(simulated: SimulatedDataset, tmp_path: Path) -> None:
    before = contents(simulated.root)
    with pytest.raises(InputError, match="new or empty folder"):
        simulate_dataset(simulated.root, SMALL, SEED)
    assert contents(simulated.root) == before
    (tmp_path / "fresh_truth").mkdir()
    (tmp_path / "fresh_truth" / "test.csv").touch()
    with pytest.raises(InputError, match="fresh_truth"):
        simulate_dataset(tmp_path / "fresh", SMALL, SEED)
    assert not (tmp_path / "fresh").exists()


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    bad = replace(SMALL, detector_from=(str(tmp_path / "nowhere"),))
    with pytest.raises(InputError, match=r"FGS1_calibration"):
        simulate_dataset(tmp_path / "out" / "set", bad, SEED)
    assert list((tmp_path / "out").iterdir()) == []


def test_thinning_to_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"simulation\.thin"):
        simulate_dataset(tmp_path / "set", replace(SMALL, thin=10), SEED)


def test_given_detectors_and_spectra_are_used(simulated: SimulatedDataset, tmp_path: Path) -> None:
    from spectramind.instruments import INSTRUMENTS
    from spectramind.simulation.detectors import draw_detector, thin_detector

    for instrument in INSTRUMENTS:
        frames = draw_detector(np.random.default_rng(1), instrument).frames
        write_calibration(tmp_path / "detectors" / f"{instrument.name}_calibration_0", frames)
    options = replace(
        SMALL,
        train_planets=1,
        two_visit_fraction=0.0,
        thin=2,
        detector_from=(str(tmp_path / "detectors"),),
        spectra_file=str(simulated.root / "train.csv"),
    )
    result = simulate_dataset(tmp_path / "set", options, SEED)
    given = pd.read_csv(simulated.root / "train.csv").to_numpy()[:, 1:]
    (spectrum,) = pd.read_csv(result.root / "train.csv").to_numpy()[:, 1:]
    correlation = [np.corrcoef(spectrum, shape)[0, 1] for shape in given]
    assert max(correlation) > 1 - 1e-9
    delivered = pd.read_parquet(result.root / "train" / result.train_ids[0] / "FGS1_calibration_0" / "dark.parquet")
    expected = draw_detector(np.random.default_rng(1), INSTRUMENTS[0]).frames
    np.testing.assert_array_equal(delivered.to_numpy(), thin_detector(expected, 2).dark)
