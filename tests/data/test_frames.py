import os

import numpy as np
import polars as pl
import pytest
from toy_dataset import PAIRS, signal, write_dataset_2024, write_parquet

from spectramind.data.frames import read_exposure
from spectramind.data.layout import open_dataset
from spectramind.errors import QuarantineError
from spectramind.instruments import AIRS, FGS1, INSTRUMENTS

PIXELS = FGS1.n_pixels


def read(root, instrument=FGS1, planet="11"):
    return read_exposure(open_dataset(root), "train", planet, 0, instrument)


def fgs1(root, kind="signal"):
    folder = root / "train" / "11"
    return folder / ("FGS1_signal_0.parquet" if kind == "signal" else f"FGS1_calibration_0/{kind}.parquet")


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_frames_come_back_as_written(root, instrument):
    raw = read(root, instrument)
    shape = 2 * PAIRS[instrument.name], instrument.rows, instrument.columns
    assert raw.counts.frames().dtype == np.uint16
    np.testing.assert_array_equal(
        raw.counts.frames(), signal(instrument).reshape(shape)[:, :, instrument.first : instrument.last + 1]
    )
    assert raw.frames.linear_corr.shape == (6, instrument.rows, instrument.last + 1 - instrument.first)
    assert raw.wavelength_um.shape == (instrument.n_bins,)
    assert raw.axis.time_h.shape == shape[:1]


def test_2024_frames(tmp_path):
    raw = read(write_dataset_2024(tmp_path / "set"), AIRS)
    assert raw.counts.shape == (2 * PAIRS["AIRS-CH0"], 32, 282)
    assert raw.adc.gain == 0.25


@pytest.mark.parametrize("kind", ["signal", "dark", "dead", "flat", "read", "linear_corr"])
def test_missing_files(root, kind):
    fgs1(root, kind).unlink()
    with pytest.raises(QuarantineError, match=fgs1(root, kind).name):
        read(root)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["signal", "dark"])
def test_truncated_files(root, kind, share):
    path = fgs1(root, kind)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(QuarantineError, match=path.name):
        read(root)


def test_random_bytes(root):
    rng = np.random.default_rng(0)
    path = fgs1(root)
    for content in (rng.bytes(4000), b"PAR1" + rng.bytes(4000) + b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(QuarantineError, match=path.name):
            read(root)


def test_flipped_bits_never_give_another_error(root):
    """Parquet pages carry no checksum: flipped bits may pass as other counts, but never as another error."""
    path, dataset = fgs1(root), open_dataset(root)
    good = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(25):
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), 20):
            bad[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        try:
            read_exposure(dataset, "train", "11", 0, FGS1)
        except QuarantineError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("shape", [(12, PIXELS - 1), (12, PIXELS + 1), (11, PIXELS), (14, PIXELS), (1_000_000, 2)])
def test_wrong_shape_is_told_from_the_footer(root, shape):
    write_parquet(fgs1(root), np.ones(shape, np.uint16))
    with pytest.raises(QuarantineError, match=rf"expected 12 rows x {PIXELS} columns, found {shape[0]} x {shape[1]}"):
        read(root)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int32, np.int64, np.uint32])
def test_whole_counts_of_another_type_are_accepted(root, kind):
    write_parquet(fgs1(root), signal(FGS1).astype(kind))
    np.testing.assert_array_equal(read(root).counts.frames(), signal(FGS1).reshape(-1, 32, 32))


@pytest.mark.parametrize("value", [-1.0, 0.5, 65536.0])
def test_values_that_are_no_counts(root, value):
    values = signal(FGS1).astype(float)
    values[3, 7] = value
    write_parquet(fgs1(root), values)
    with pytest.raises(QuarantineError, match="whole counts"):
        read(root)


def test_text_and_missing_values(root):
    frame = pl.read_parquet(fgs1(root))
    frame.with_columns(pl.lit("x").alias("column_3")).write_parquet(fgs1(root))
    with pytest.raises(QuarantineError, match="expected numbers"):
        read(root)
    frame.with_columns(pl.lit(None, dtype=pl.UInt16).alias("column_3")).write_parquet(fgs1(root))
    with pytest.raises(QuarantineError, match="missing values"):
        read(root)


def test_few_samples_that_are_not_numbers_are_returned_at_full_scale(root):
    values = signal(FGS1).astype(float)
    values[3, :5] = np.nan
    write_parquet(fgs1(root), values)
    counts = read(root).counts.frames().reshape(-1, PIXELS)
    assert (counts[3, :5] == 65535).all()
    values[:, :5] = np.inf
    write_parquet(fgs1(root), values)
    with pytest.raises(QuarantineError, match="not finite"):
        read(root)


@pytest.mark.parametrize("value", [0, 437])
def test_constant_frames(root, value):
    write_parquet(fgs1(root), np.full((12, PIXELS), value, np.uint16))
    with pytest.raises(QuarantineError, match="constant"):
        read(root)


def test_saturation(root):
    values = signal(FGS1)
    values[2] = 65535
    write_parquet(fgs1(root), values)
    assert (read(root).counts.frames()[2] == 65535).all()


@pytest.mark.parametrize(
    ("kind", "shape"), [("dark", (31, 32)), ("flat", (32, 31)), ("linear_corr", (160, 32)), ("dead", (64, 32))]
)
def test_reference_frames_of_wrong_shape(root, kind, shape):
    write_parquet(fgs1(root, kind), np.ones(shape))
    with pytest.raises(QuarantineError, match=f"{kind}.parquet"):
        read(root)


@pytest.mark.parametrize("kind", ["dark", "flat", "read", "linear_corr"])
def test_reference_values_that_are_not_finite(root, kind):
    values = pl.read_parquet(fgs1(root, kind)).to_numpy().copy()
    values[5, 5] = np.nan
    write_parquet(fgs1(root, kind), values)
    frames = read(root).frames
    assert frames.dead[5, 5]
    assert all(np.isfinite(plane).all() for plane in (frames.dark, frames.flat, frames.read, frames.linear_corr))
    values[5] = np.nan
    write_parquet(fgs1(root, kind), values)
    with pytest.raises(QuarantineError, match=f"{kind}.parquet"):
        read(root)


@pytest.mark.parametrize("kind", ["flat", "read", "linear_corr"])
def test_reference_frames_of_zeros(root, kind):
    values = pl.read_parquet(fgs1(root, kind)).to_numpy()
    write_parquet(fgs1(root, kind), np.zeros_like(values))
    with pytest.raises(QuarantineError, match=f"{kind}.parquet"):
        read(root)


def test_dead_map(root):
    write_parquet(fgs1(root, "dead"), np.zeros((32, 32), np.uint8))
    assert not read(root).frames.dead.any()
    write_parquet(fgs1(root, "dead"), np.ones((32, 32), bool))
    with pytest.raises(QuarantineError, match=r"dead\.parquet"):
        read(root)
    write_parquet(fgs1(root, "dead"), np.full((32, 32), 7))
    with pytest.raises(QuarantineError, match="true or false"):
        read(root)


def test_one_corrupt_planet_leaves_the_others(root):
    fgs1(root).write_bytes(b"")
    with pytest.raises(QuarantineError):
        read(root)
    assert read(root, planet="12").counts.frames().size
