"""The chain on the challenge's own frames: levels and noise as measured on them by others."""

import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from spectramind.calibration.kill_chain import calibrate_exposure
from spectramind.calibration.options import CalibrationOptions
from spectramind.data.frames import read_exposure
from spectramind.data.layout import open_dataset
from spectramind.instruments import AIRS, FGS1, INSTRUMENTS

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("SPECTRAMIND_REAL_DATA" not in os.environ, reason="SPECTRAMIND_REAL_DATA is not set"),
]
PLANET, FRAMES = "342072318", 50
EVERY_PAIR = CalibrationOptions(airs_bin_seconds=0, fgs1_bin_seconds=0)


@pytest.fixture(scope="module")
def real():
    return Path(os.environ["SPECTRAMIND_REAL_DATA"])


@pytest.fixture(scope="module")
def dataset(real, tmp_path_factory):
    """The first frames of a real planet as a complete data set."""
    root = tmp_path_factory.mktemp("real") / "set"
    folder = root / "train" / PLANET
    shutil.copytree(real / f"planet_{PLANET}", folder)
    for name in ("adc_info.csv", "wavelengths.csv", "train_star_info.csv"):
        shutil.copy(real / name, root)
    stars = (root / "train_star_info.csv").read_text().splitlines()
    row = PLANET + stars[1][stars[1].index(",") :]
    (root / "train_star_info.csv").write_text(f"{stars[0]}\n{row}\n")
    header = "planet_id," + ",".join(f"wl_{number}" for number in range(1, 284))
    (root / "train.csv").write_text(f"{header}\n{PLANET},{','.join(['0.01'] * 283)}\n")
    axis = pl.read_parquet(real / "axis_info.parquet")
    times = [name for name in axis.columns if not name.endswith("-um")]
    keep = pl.int_range(pl.len()) < FRAMES
    axis.with_columns(pl.when(keep).then(pl.col(times))).head(356).write_parquet(root / "axis_info.parquet")
    for instrument in INSTRUMENTS:
        path = folder / f"{instrument.name}_signal_0.parquet"
        frames = pl.read_parquet(path).to_numpy().reshape(FRAMES, instrument.n_pixels)
        pl.DataFrame(frames, schema=[f"column_{n}" for n in range(frames.shape[1])]).write_parquet(path)
    return open_dataset(root)


def test_complete_metadata_are_accepted(real):
    """The sample folder has no frames, so that opening it gets as far as the missing test planet."""
    with pytest.raises(Exception, match="none for 1103775"):
        open_dataset(real)


def test_airs_levels_and_noise(dataset):
    curve, _, summary = calibrate_exposure(read_exposure(dataset, "train", PLANET, 0, AIRS), EVERY_PAIR)
    level = curve.flux.mean(axis=0)[[50, 100, 150, 200, 250]]
    assert (np.abs(level / np.array([80e3, 52e3, 29e3, 21e3, 14e3]) - 1) < 0.6).all()
    assert (np.diff(level) < 0).all()
    ratio = curve.flux.var(axis=0, ddof=1) / curve.variance.mean(axis=0)
    assert 0.8 < np.median(ratio) < 1.3
    assert summary["bad_pixel_share"] < 0.03
    assert 0 < curve.foreground.sum() < 0.02 * curve.flux[0].sum()


def test_fgs1_levels_and_noise(dataset):
    curve, _, summary = calibrate_exposure(read_exposure(dataset, "train", PLANET, 0, FGS1), EVERY_PAIR)
    assert summary["electrons_per_pair"] == pytest.approx(221e3, rel=0.05)
    assert summary["noise_over_photon"] < 2.5
    assert curve.channels["centroid_x"].std() == pytest.approx(0.1, abs=0.06)
    assert 0 <= curve.foreground[0] < 0.03 * curve.flux.mean()
