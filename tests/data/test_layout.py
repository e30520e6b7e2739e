import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from toy_dataset import HEADER, STAR, wavelengths, write_axes, write_dataset_2024, write_visit

from spectramind.data.layout import implausible, open_dataset, time_axis, usable_star
from spectramind.errors import InputError, QuarantineError
from spectramind.instruments import AIRS, FGS1
from spectramind.types import Adc, Star


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_2025_layout(root):
    dataset = open_dataset(root)
    assert dataset.edition == "2025"
    assert dataset.planets("train") == ("11", "12")
    assert dataset.planets("test") == ("21",)
    assert dataset.visits("train", "11") == (0,)
    assert dataset.star("test", "21").Ts == 5539.0
    assert dataset.adc("test", "21", AIRS) == Adc(0.5, -900.0)
    np.testing.assert_array_equal(dataset.wavelengths_um, wavelengths())
    ids, depths = dataset.labels()
    assert ids == ("11", "12")
    assert depths.shape == (2, 283)
    assert not dataset.issues
    files = dataset.visit_files("train", "11", 0)
    assert len(files) == 12
    assert all(path.is_file() for path in files.values())
    assert set(dataset.metadata_files()) >= {"adc_info.csv", "axis_info.parquet", "train.csv"}


def test_2024_layout(tmp_path):
    dataset = open_dataset(write_dataset_2024(tmp_path / "set"))
    assert dataset.edition == "2024"
    assert dataset.planets("train") == ("11",)
    assert dataset.visits("test", "21") == (0,)
    assert dataset.adc("train", "11", AIRS) == Adc(0.25, -900.0)
    assert dataset.adc("test", "21", FGS1) == Adc(0.75, -1000.0)
    assert all(path.is_file() for path in dataset.visit_files("test", "21", 0).values())
    with pytest.raises(InputError, match="a row for planet 21"):
        dataset.star("test", "21")


def test_visits_are_those_of_which_any_file_exists(root):
    write_visit(root / "train" / "11", "_1")
    (root / "train" / "11" / "AIRS-CH0_signal_1.parquet").unlink()
    assert open_dataset(root).visits("train", "11") == (0, 1)


def test_planet_ids_written_as_floats(root):
    edit(root / "test_star_info.csv", "\n21,", "\n21.0,")
    assert open_dataset(root).planets("test") == ("21",)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("adc_info.csv", "0.4369", "0", "positive gain"),
        ("adc_info.csv", "0.4369", "-1", "positive gain"),
        ("adc_info.csv", "0.4369", "nan", "positive gain"),
        ("adc_info.csv", "FGS1_adc_gain", "gain", "FGS1_adc_gain"),
        ("train.csv", "11,0.0125", "11,nan", "depths between 0 and 1"),
        ("train.csv", "11,0.0125", "11,-0.01", "planet 11, wl_1"),
        ("train.csv", "11,0.0125", "11,1.5", "depths between 0 and 1"),
        ("train.csv", "\n12,", "\n11,", "11 repeated"),
        ("train_star_info.csv", "\n12,", "\n11,", "11 repeated"),
        ("test_star_info.csv", "\n21,", "\n../21,", "planet ids"),
        ("test_star_info.csv", "\n21,", "\n22,", "none for 22"),
        ("test_star_info.csv", "5539.0", "hot", "column Ts"),
        ("wavelengths.csv", ",wl_283", "", "282 cells"),
        ("wavelengths.csv", "0.7,", "-0.7,", "ascending"),
    ],
)
def test_bad_metadata_stop(root, name, old, new, message):
    edit(root / name, old, new)
    with pytest.raises(InputError, match=message) as caught:
        open_dataset(root)
    assert not isinstance(caught.value, QuarantineError)


@pytest.mark.parametrize("name", ["adc_info.csv", "axis_info.parquet", "wavelengths.csv"])
def test_missing_metadata_stop(root, name):
    (root / name).unlink()
    with pytest.raises(InputError, match=name):
        open_dataset(root)


def test_missing_root_stops(tmp_path):
    with pytest.raises(InputError, match="the folder of a data set"):
        open_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w[::-1],
        lambda w: np.random.default_rng(0).permutation(w),
        lambda w: np.r_[w[:1], w[1:] + 0.01],
        lambda w: w[:-1],
        lambda w: np.r_[w, 4.0],
    ],
)
def test_wavelengths_that_are_not_the_columns_stop(root, change):
    values = change(wavelengths()).tolist()
    header = ",".join(f"wl_{number + 1}" for number in range(len(values)))
    (root / "wavelengths.csv").write_text(f"{header}\n{','.join(map(repr, values))}\n")
    with pytest.raises(InputError):
        open_dataset(root)


def test_test_frames_without_metadata_stop(root):
    shutil.copytree(root / "test" / "21", root / "test" / "22")
    with pytest.raises(InputError, match="22"):
        open_dataset(root)


def test_train_planets_without_frames_are_set_aside(root):
    shutil.rmtree(root / "train" / "12")
    dataset = open_dataset(root)
    assert dataset.planets("train") == ("11",)
    assert dataset.issues["12"] == ("no folder of frames",)


def test_train_frames_without_labels_are_set_aside(root):
    shutil.copytree(root / "train" / "12", root / "train" / "13")
    dataset = open_dataset(root)
    assert dataset.planets("train") == ("11", "12")
    assert "no row of labels" in dataset.issues["13"]


def test_implausible_stars_are_noted(root):
    (root / "test_star_info.csv").write_text(f"{HEADER}\n21,{STAR.replace('0.0', '1.7', 1).replace('89.5', '120')}\n")
    assert "i" in open_dataset(root).issues["21"][0]


def test_links_out_of_the_data_set_are_refused(root, tmp_path):
    path = root / "train" / "11" / "FGS1_signal_0.parquet"
    outside = tmp_path / "elsewhere.parquet"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(QuarantineError, match="FGS1_signal_0"):
        open_dataset(root).visit_files("train", "11", 0)


def test_ramp_starts_and_integration_times():
    stamps = np.array([0.1, 0.2, 4.9, 5.0, 9.7, 9.8]) / 3600
    airs = time_axis(stamps, np.tile([0.1, 4.5], 3), "axis")
    np.testing.assert_allclose(airs.time_h * 3600, [0, 0, 4.8, 4.8, 9.6, 9.6], atol=1e-9)
    np.testing.assert_allclose(airs.integration_s, np.tile([0.1, 4.6], 3))
    fgs1 = time_axis(np.array([0.1, 0.2, 0.5, 0.6]) / 3600, None, "axis")
    np.testing.assert_allclose(fgs1.time_h * 3600, [0, 0, 0.4, 0.4], atol=1e-9)
    np.testing.assert_allclose(fgs1.integration_s, [0.1, 0.2, 0.1, 0.2])


@pytest.mark.parametrize(
    ("stamps", "integration"),
    [
        ([1.0, 2.0, 3.0], None),
        ([1.0, 2.0, 2.0, 3.0], None),
        ([1.0, 2.0, 3.0, 4.0], [0.1, 4.5, 4.5, 0.1]),
        ([1.0, 2.0, 3.0, 4.0], [0.1, 4.5]),
        ([1.0, 2.0, 3.0, 4.0], [0.1, 4.5, 0.0, 4.5]),
    ],
)
def test_axes_without_pairs_stop(stamps, integration):
    with pytest.raises(InputError):
        time_axis(np.array(stamps), None if integration is None else np.array(integration), "axis")


def test_axis_with_a_text_column_stops(root):
    write_axes(root / "axis_info.parquet")
    frame = pl.read_parquet(root / "axis_info.parquet").with_columns(pl.lit("x").alias("FGS1-axis0-h"))
    frame.write_parquet(root / "axis_info.parquet")
    with pytest.raises(InputError, match="FGS1-axis0-h"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("i", 91.0, 89.0),
        ("i", float("nan"), 89.0),
        ("sma", 0.0, 15.62),  # by Kepler's third law; the table says 15.4
        ("P", -3.0, 6.75),  # the table says 6.9
        ("Rs", 6.7e8, 1.0),
        ("Ts", float("nan"), 5772.0),
        ("e", 1.2, 0.0),
    ],
)
def test_doubtful_stars_get_stand_ins(column, value, expected):
    sound = Star("21", *map(float, STAR.split(",")))
    star = usable_star(replace(sound, **{column: value}))
    assert getattr(star, column) == pytest.approx(expected, rel=0.01)
    assert not implausible(star)
    assert replace(star, **{column: getattr(sound, column)}) == sound
    assert usable_star(sound) == sound
