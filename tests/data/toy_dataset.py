"""A tiny data set in the challenge's layout: a few frames per planet, written with an ordinary library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from spectramind.instruments import AIRS, FGS1, Instrument

PAIRS = {AIRS.name: 4, FGS1.name: 6}
STAR = "0.96,0.95,5539.0,1.6,0.0,6.9,15.4,89.5"
HEADER = "planet_id,Rs,Ms,Ts,Mp,e,P,sma,i"
WL = ",".join(f"wl_{n}" for n in range(1, 284))


def dispersion() -> np.ndarray:
    """Wavelength of each AIRS column, descending."""
    return np.linspace(4.07, 1.64, AIRS.columns)


def wavelengths() -> np.ndarray:
    return np.concatenate([[0.7], dispersion()[AIRS.first : AIRS.last + 1][::-1]])


def write_parquet(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(values, schema=[f"column_{n}" for n in range(values.shape[1])]).write_parquet(path)


def signal(instrument: Instrument, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    counts = rng.integers(430, 470, (2 * PAIRS[instrument.name], instrument.n_pixels))
    counts[1::2] += rng.integers(50, 900, instrument.n_pixels)
    return counts.astype(np.uint16)


def write_visit(folder: Path, suffix: str = "_0") -> None:
    for instrument in (AIRS, FGS1):
        shape = instrument.rows, instrument.columns
        rng = np.random.default_rng(1)
        frames = folder / f"{instrument.name}_calibration{suffix}"
        write_parquet(folder / f"{instrument.name}_signal{suffix}.parquet", signal(instrument))
        write_parquet(frames / "dark.parquet", rng.normal(0.006, 0.001, shape))
        write_parquet(frames / "dead.parquet", rng.random(shape) < 0.003)
        write_parquet(frames / "flat.parquet", rng.normal(1.0, 0.02, shape))
        write_parquet(frames / "read.parquet", rng.normal(13.3, 0.3, shape))
        linear = np.zeros((6, *shape))
        linear[1] = 1.0
        write_parquet(frames / "linear_corr.parquet", linear.reshape(-1, instrument.columns))


def write_axes(path: Path) -> None:
    start = {name: np.arange(n) * 96.0 for name, n in PAIRS.items()}
    columns = {f"{name}-axis0-h": np.stack([t + 0.1, t + 0.2], 1).ravel() / 3600 for name, t in start.items()}
    columns["AIRS-CH0-axis2-um"] = dispersion()
    columns["AIRS-CH0-integration_time"] = np.tile([0.1, 4.5], PAIRS[AIRS.name])
    longest = max(map(len, columns.values()))
    padded = {name: np.pad(v, (0, longest - len(v)), constant_values=np.nan) for name, v in columns.items()}
    pl.DataFrame(padded).write_parquet(path)


def write_dataset(root: Path, train: tuple[str, ...] = ("11", "12"), test: tuple[str, ...] = ("21",)) -> Path:
    """The 2025 layout; returns `root`."""
    root.mkdir(parents=True, exist_ok=True)
    adc = "FGS1_adc_offset,FGS1_adc_gain,AIRS-CH0_adc_offset,AIRS-CH0_adc_gain\n-1000.0,0.4369,-900.0,0.5\n"
    (root / "adc_info.csv").write_text(adc)
    (root / "wavelengths.csv").write_text(f"{WL}\n{','.join(map(repr, wavelengths().tolist()))}\n")
    write_axes(root / "axis_info.parquet")
    depths = ",".join(["0.0125"] * 283)
    (root / "train.csv").write_text(f"planet_id,{WL}\n" + "".join(f"{planet},{depths}\n" for planet in train))
    for split, planets in (("train", train), ("test", test)):
        rows = "".join(f"{planet},{STAR}\n" for planet in planets)
        (root / f"{split}_star_info.csv").write_text(f"{HEADER}\n{rows}")
        for planet in planets:
            write_visit(root / split / planet)
    return root


def write_dataset_2024(root: Path) -> Path:
    """The 2024 layout: ADC constants per planet, no star table, one visit without a number."""
    write_dataset(root, train=(), test=())
    for name in ("adc_info.csv", "train_star_info.csv", "test_star_info.csv", "train.csv"):
        (root / name).unlink()
    header = "planet_id,FGS1_adc_offset,FGS1_adc_gain,AIRS-CH0_adc_offset,AIRS-CH0_adc_gain,star\n"
    (root / "train_adc_info.csv").write_text(header + "11,-1000,0.5,-900,0.25,1\n")
    (root / "test_adc_info.csv").write_text(header + "21,-1000,0.75,-900,0.5,0\n")
    (root / "train_labels.csv").write_text(f"planet_id,{WL}\n11,{','.join(['0.0125'] * 283)}\n")
    write_visit(root / "train" / "11", suffix="")
    write_visit(root / "test" / "21", suffix="")
    return root
