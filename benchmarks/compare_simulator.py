"""How close simulated data are to real ones: a table of the same numbers measured on both.

    python benchmarks/compare_simulator.py REAL_DIR

REAL_DIR holds real challenge files: train_star_info.csv, spectra_2025_nine.csv, spectra_2024_400.csv, one folder
planet_<id>/ with calibration files and the first raw frames of both instruments, and the calibrated light curves of
one transit (*_calibrated_lightcurve.npz). The simulated side uses default settings; frames are simulated on the real
planet's own detectors, with its star's temperature and its brightness at 3 um.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

from spectramind.instruments import AIRS, FGS1, INSTRUMENTS, Instrument
from spectramind.simulation.dataset import draw_planets
from spectramind.simulation.detectors import Detector, draw_detector
from spectramind.simulation.exposures import planet_detector, simulate_exposure
from spectramind.simulation.linearity import linearise
from spectramind.simulation.options import SimulationOptions
from spectramind.simulation.orbits import transit_duration_h
from spectramind.simulation.planets import SimulatedPlanet
from spectramind.transit.light_curve import sky_distance, transit_light_curve
from spectramind.types import CalibrationFrames, Floats

SEED = 2025
OUT_OF_SIGHT_H = 1e3
RAW_FRAMES_BRIGHTNESS = 1.28
"""AIRS-CH0 light of the star of the raw frames, relative to that of the calibrated light curves."""
LEVEL_INDICES = (0, 50, 100, 150, 200, 250, 281)
BRIGHT = ((50, 200), (200, 1000), (1000, 5000), (5000, 20_000), (20_000, 90_000))

Values = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path, metavar="REAL_DIR")
    real = parser.parse_args().real
    options = SimulationOptions(train_planets=1100, test_planets=1)
    planets = draw_planets(SEED, "train", options, None)
    stars = pd.read_csv(real / "train_star_info.csv")
    simulated_stars = pd.DataFrame([vars(planet.star_row()) for planet in planets])
    show("Star table, 1,100 rows: median [5 %, 95 %]", star_quantiles(stars), star_quantiles(simulated_stars))

    depths = np.stack([planet.depth for planet in planets])
    nine = read_spectra(real / "spectra_2025_nine.csv")
    earlier = read_spectra(real / "spectra_2024_400.csv")
    show("Spectra of 2025: nine real, 1,100 simulated", spectrum_statistics(nine), spectrum_statistics(depths))
    show("Shapes at unit amplitude: 400 of 2024, 1,100 simulated", shape_statistics(earlier), shape_statistics(depths))
    show("The real shapes in the simulated components: 2025, 2024", overlap(nine, depths), overlap(earlier, depths))

    folder = next(path for path in sorted(real.glob("planet_*")) if path.is_dir())
    star = stars[stars.planet_id == int(folder.name.removeprefix("planet_"))].iloc[0]
    raw_options = replace(options, detector_from=(str(folder),))
    planet = replace(planets[0], mid_time_h=(OUT_OF_SIGHT_H,))
    host = replace(planet.star, temperature=float(star.Ts), brightness=RAW_FRAMES_BRIGHTNESS)
    planet = replace(planet, star=host)
    for instrument in INSTRUMENTS:
        detector = planet_detector(SEED, planet, instrument, raw_options)
        drawn = draw_detector(np.random.default_rng(SEED), instrument)
        show(f"{instrument.name} detector", detector_statistics(detector), detector_statistics(drawn))
        values = pd.read_parquet(folder / f"{instrument.name}_signal_0.parquet").to_numpy()
        frames = values.reshape(-1, instrument.rows, instrument.columns)
        simulated = first_frames(planet, instrument, detector, raw_options, frames.shape[0])
        compared = [frame_statistics(x, detector.frames, instrument, options) for x in (frames, simulated)]
        show(f"{instrument.name}: first {frames.shape[0]} raw frames (electrons per CDS pair)", *compared)

    curves = np.load(next(real.glob("*_calibrated_lightcurve.npz")))
    real_curves = {FGS1.name: curves["fgs_electrons_per_bin50"][:, None], AIRS.name: curves["airs_electrons_per_bin5"]}
    times = {FGS1.name: curves["fgs_time_s"] / 3600.0, AIRS.name: curves["airs_time_s"] / 3600.0}
    star = stars[stars.planet_id == int(curves["planet_id"].ravel()[0])].iloc[0]
    planet = like_star(planets, star)
    simulated_curves = {i.name: simulated_curve(planet, i, raw_options, times[i.name].size) for i in INSTRUMENTS}
    for instrument in INSTRUMENTS:
        name = instrument.name
        compared = [curve_statistics(c[name], times[name], star) for c in (real_curves, simulated_curves)]
        show(f"{name}: a whole transit", *compared)


def show(title: str, real: Values, simulated: Values) -> None:
    print(f"\n{title}\n| quantity | real | simulated |\n|---|---:|---:|")
    for name, value in real.items():
        print(f"| {name} | {value:.4g} | {simulated.get(name, np.nan):.4g} |")


def star_quantiles(table: pd.DataFrame) -> Values:
    impact = table.sma * np.cos(np.radians(table.i))
    columns = {name: table[name] for name in ("Rs", "Ms", "Ts", "Mp", "P", "sma", "i")} | {"impact parameter": impact}
    return {
        f"{name}, {percent} %": float(np.percentile(column, percent))
        for name, column in columns.items()
        for percent in (5, 50, 95)
    }


def read_spectra(path: Path) -> Floats:
    table = pd.read_csv(path)
    return table[[f"wl_{i + 1}" for i in range(283)]].to_numpy()


def split_shape(depths: Floats) -> tuple[Floats, Floats, Floats]:
    mean = depths[:, 1:].mean(axis=1)
    return mean, depths - mean[:, None], depths[:, 1:].std(axis=1)


def spectrum_statistics(depths: Floats) -> Values:
    mean, shape, std = split_shape(depths)
    result = {"mean depth, median": float(np.median(mean)), "ln mean depth, std": float(np.log(mean).std())}
    for percent in (0, 50, 100):
        result[f"std over wavelength, {percent} %, ppm"] = float(np.percentile(std, percent) * 1e6)
        result[f"FGS1 - AIRS, {percent} %, ppm"] = float(np.percentile(shape[:, 0], percent) * 1e6)
    return result


def components(depths: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, principal components and shares of variance of shapes at unit amplitude."""
    _, shape, std = split_shape(depths)
    unit = shape / std[:, None]
    _, singular, basis = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    return unit.mean(axis=0), basis, np.cumsum(singular**2) / np.sum(singular**2)


def shape_statistics(depths: Floats) -> Values:
    _, shape, std = split_shape(depths)
    unit = shape[:, 1:] / std[:, None]
    _, _, share = components(depths)
    steps = {"step between bins, median": float(np.median(np.abs(np.diff(unit, axis=1))))}
    return steps | {f"variance in {k} components": float(share[k - 1]) for k in (3, 5, 7, 10, 15)}


def overlap(real: Floats, simulated: Floats) -> Values:
    mean, basis, _ = components(simulated)
    _, shape, std = split_shape(real)
    unit = shape / std[:, None] - mean
    shares = {}
    for k in (5, 10, 20):
        rest = unit - unit @ basis[:k].T @ basis[:k]
        shares[f"variance outside the first {k}"] = float((rest**2).sum() / (unit**2).sum())
    return shares


def detector_statistics(detector: Detector) -> Values:
    frames = detector.frames
    alive = ~frames.dead
    result = {f"dark, {p} %, e-/s": float(np.percentile(frames.dark, p)) for p in (5, 50, 95, 99.5, 100)}
    result |= {"dead, %": 100 * float(frames.dead.mean()), "flat, mean": float(frames.flat[alive].mean())}
    spread = np.subtract(*np.percentile(frames.flat[alive], [84.13, 15.87])) / 2
    result |= {"flat, scatter": float(spread), "read noise, median, e-": float(np.median(frames.read))}
    for level in (1e4, 5e4):
        ratio = linearise(level, frames.linear_corr)[alive] / level - 1
        result[f"linear_corr at {level:.0e} e-, mean %"] = 100 * float(ratio.mean())
        result[f"linear_corr at {level:.0e} e-, scatter %"] = 100 * float(np.std(ratio))
    return result


def first_frames(
    planet: SimulatedPlanet, instrument: Instrument, detector: Detector, options: SimulationOptions, n_frames: int
) -> NDArray[np.uint16]:
    """The first frames at full cadence, without a transit."""
    full = options.airs_frames if instrument.dispersed else options.fgs1_frames
    window = options.window_h * n_frames / full
    short = replace(options, airs_frames=n_frames, fgs1_frames=n_frames, window_h=window)
    counts, _ = simulate_exposure(SEED, planet, 0, instrument, detector, short)
    return counts.T.reshape(n_frames, instrument.rows, instrument.columns)


def frame_statistics(
    counts: NDArray[np.uint16], frames: CalibrationFrames, instrument: Instrument, options: SimulationOptions
) -> Values:
    electrons = counts / options.gain + options.offset
    cds = electrons[1::2] - electrons[::2]
    mean, variance = cds.mean(axis=0), cds.var(axis=0, ddof=1)
    good = ~frames.dead & (frames.dark < 0.02)
    level = linearise(electrons[1::2].mean(axis=0), frames.linear_corr) - linearise(
        electrons[::2].mean(axis=0), frames.linear_corr
    )
    bright = good & (level > 1000)
    first = linearise(electrons[::2].mean(axis=0), frames.linear_corr)
    result = {
        "first read / CDS": float((first * level)[bright].sum() / (level**2)[bright].sum()),
        "first read where dark, e-": float(electrons[::2].mean(axis=0)[good & (level < 60)].mean()),
        "read noise of first reads, e-": float(np.median(electrons[::2].std(axis=0, ddof=1)[good & (level < 200)])),
    }
    for low, high in BRIGHT:
        chosen = good & (mean > low) & (mean <= high)
        if chosen.sum():
            noise = mean + 2 * frames.read**2
            name = f"variance / (photon + read), {low}..{high} e-, median"
            result[name] = float(np.median((variance / noise)[chosen]))
    return result | (trace_statistics(cds) if instrument.dispersed else point_statistics(cds))


def trace_statistics(cds: Floats) -> Values:
    mean = cds.mean(axis=0)
    result = {f"column {c}, sum over rows": float(mean[:, c].sum()) for c in (320, 270, 220, 170, 120, 70, 39)}
    for columns in ((60, 100), (200, 240), (290, 320)):
        part = mean[:, slice(*columns)].sum(axis=1)
        for row in (0, 12, 14, 15, 16, 17, 20, 31):
            result[f"row {row} share of columns {columns[0]}-{columns[1]}, %"] = float(100 * part[row] / part.sum())
    rows = np.arange(10, 22)
    light = cds[:, 10:22, 50:300]
    centroid = (light * rows[None, :, None]).sum(axis=(1, 2)) / light.sum(axis=(1, 2))
    return result | {"row centroid, rms px": float(centroid.std())}


def point_statistics(cds: Floats) -> Values:
    mean = cds.mean(axis=0)
    ordered = np.sort(mean.ravel())[::-1]
    result = {"sum, e-": float(mean.sum()), "brightest pixel, e-": float(ordered[0])}
    result |= {f"light in the brightest {n}, %": float(100 * ordered[:n].sum() / mean.sum()) for n in (4, 16, 64)}
    corner = np.r_[0:4, 28:32]
    result["corner pixels, median e-"] = float(np.median(mean[np.ix_(corner, corner)]))
    weight = np.where(mean > 200, 1.0, 0.0)
    y, x = np.indices(mean.shape)
    light = (cds * weight).sum(axis=(1, 2))
    for name, grid in (("x", x), ("y", y)):
        centroid = (cds * grid * weight).sum(axis=(1, 2)) / light
        moved = centroid - centroid.mean()
        result[f"centroid {name}, rms px"] = float(moved.std())
        result[f"centroid {name}, autocorrelation"] = float((moved[1:] * moved[:-1]).mean() / moved.var())
    return result | {"sum, scatter / photon noise": float(cds.sum(axis=(1, 2)).std() / np.sqrt(mean.sum()))}


def like_star(planets: tuple[SimulatedPlanet, ...], row: pd.Series) -> SimulatedPlanet:
    """A simulated planet with the real one's star temperature and orbit, mid-transit at the middle of the window."""
    planet = planets[0]
    table = replace(planet.table, period_d=float(row.P), sma=float(row.sma), inclination_deg=float(row.i))
    depth = planet.depth + 0.0239 - planet.depth[1:].mean()
    return replace(
        planet,
        star=replace(planet.star, temperature=float(row.Ts), brightness=1.0),
        table=table,
        orbit=table,
        depth=depth,
        duration_h=transit_duration_h(table, float(np.sqrt(0.0239))),
        mid_time_h=(3.75,),
    )


def simulated_curve(planet: SimulatedPlanet, instrument: Instrument, options: SimulationOptions, n_bins: int) -> Floats:
    """Full-size frames, calibrated plainly and summed over an aperture: (bins, B) electrons per pair."""
    detector = planet_detector(SEED, planet, instrument, options)
    counts, _ = simulate_exposure(SEED, planet, 0, instrument, detector, options)
    frames = detector.frames
    shape = (instrument.rows, instrument.columns)
    n_pairs = counts.shape[1] // 2
    light = np.empty((n_bins, *shape))
    per_bin = n_pairs // n_bins
    coefficients = frames.linear_corr.reshape(6, -1, 1)
    for start in range(0, n_bins, 50):
        block = counts[:, 2 * per_bin * start : 2 * per_bin * (start + 50)] / options.gain + options.offset
        linear = linearise(block, coefficients)
        cds = (linear[:, 1::2] - linear[:, ::2]).reshape(len(linear), -1, per_bin)
        light[start : start + 50] = cds.mean(axis=2).T.reshape(-1, *shape)
    return extracted(light, frames, instrument)


def extracted(light: Floats, frames: CalibrationFrames, instrument: Instrument) -> Floats:
    """Flat field, bad pixels from the time-mean image, foreground from the outer rows, sum over the aperture."""
    seconds = 4.5 if instrument.dispersed else 0.1
    bad = frames.dead | (frames.dark > 0.05) | (frames.read > 25.0)
    flat = (light - frames.dark * seconds) / np.where(bad, 1.0, frames.flat)
    flat = np.where(bad, 0.0, flat)
    if instrument.dispersed:
        foreground = np.median(flat[:, np.r_[0:3, 29:32]], axis=1, keepdims=True).mean(axis=0)
        spectrum = (flat - foreground * ~bad)[:, 8:25].sum(axis=1)
        return spectrum[:, instrument.first : instrument.last + 1][:, ::-1]
    corner = np.median(flat.mean(axis=0)[np.ix_(np.r_[0:4, 28:32], np.r_[0:4, 28:32])])
    return (flat - corner * ~bad)[:, 4:28, 4:28].sum(axis=(1, 2))[:, None]


def curve_statistics(flux: Floats, time_h: Floats, star: pd.Series) -> Values:
    """Levels, bin-to-bin scatter over photon noise, and a joint transit and drift fit to the white light curve."""
    per_bin = round(7.5 / flux.shape[0] * 3600.0 / (4.8 if flux.shape[1] > 1 else 0.4))
    level = flux.mean(axis=0)
    difference = np.diff(np.log(flux), axis=0) / np.sqrt(2)
    scatter = 1.4826 * np.median(np.abs(difference), axis=0) * np.sqrt(level * per_bin)
    result: Values = {}
    for index in LEVEL_INDICES if flux.shape[1] > 1 else (0,):
        result[f"level at bin {index}, e- per pair"] = float(level[index])
    for index in (0, 100, 200, 270) if flux.shape[1] > 1 else (0,):
        chosen = slice(max(index - 8, 0), index + 9)
        result[f"scatter / photon noise at bin {index}"] = float(np.median(scatter[chosen]))
    white = flux.sum(axis=1)
    mid, drift, spread = fit_white(white / np.median(white[: white.size // 10]), time_h, star)
    return result | {
        "mid-transit, h in the file": mid,
        "drift, peak to peak ppm": drift * 1e6,
        "residual scatter / photon noise": spread * float(np.sqrt(white.mean() * per_bin)),
    }


def fit_white(flux: Floats, time_h: Floats, star: pd.Series) -> tuple[float, float, float]:
    phase = 2 * time_h / 7.5 - 1

    def model(p: Floats) -> Floats:
        z = sky_distance(time_h, p[0], float(star.P), p[2], p[3])
        return transit_light_curve(z, p[1], p[4], p[5]) * np.polynomial.chebyshev.chebval(phase, p[6:])

    start_mid = time_h[flux < 1 - 0.6 * (1 - np.percentile(flux, 2))].mean()
    start = np.array([start_mid, 0.15, star.sma, min(star.i, 89.0), 0.2, 0.2, 1.0, 0, 0, 0])
    scale = [0.01, 0.01, 0.1, 0.1, 0.1, 0.1, *[1e-3] * 4]
    fit = least_squares(lambda p: (flux - model(p)) / 2e-4, start, x_scale=scale, loss="soft_l1")
    drift = np.ptp(np.polynomial.chebyshev.chebval(phase, fit.x[6:]))
    spread = 1.4826 * np.median(np.abs(flux - model(fit.x)))
    return float(fit.x[0]), float(drift), float(spread)


if __name__ == "__main__":
    main()
