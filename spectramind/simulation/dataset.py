"""A whole data set in the challenge's layout, with the truth of its test split beside it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa

from spectramind.errors import InputError
from spectramind.instruments import AIRS, FGS1, INSTRUMENTS, Instrument
from spectramind.simulation import files
from spectramind.simulation.atmospheres import MOLECULES, read_spectra
from spectramind.simulation.axes import time_axis
from spectramind.simulation.detectors import thin_adc, thin_detector
from spectramind.simulation.drift import Drift
from spectramind.simulation.exposures import planet_detector, simulate_exposure
from spectramind.simulation.options import SimulationOptions
from spectramind.simulation.planets import SPLITS, SimulatedPlanet, Split, draw_planet, generator
from spectramind.types import Adc, Floats

ID_STREAM = 3
LARGEST_ID = 2**32
MINIMUM_PAIRS = 2

Progress = Callable[[int, int], None]
"""Called with the number of finished planets and of all planets."""

Row = dict[str, float | str | int]


@dataclass(frozen=True)
class SimulatedDataset:
    """What was written: `root` in the challenge's layout, `truth` with test.csv and parameters.parquet."""

    root: Path
    truth: Path
    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]
    visits: int


def truth_folder(root: Path) -> Path:
    """Where the truth of the test split goes: a sibling of the data set."""
    return root.parent / f"{root.name}_truth"


def simulate_dataset(
    root: Path, options: SimulationOptions, seed: int, workers: int = 1, progress: Progress | None = None
) -> SimulatedDataset:
    """Write a data set to `root` and its truth to `<root>_truth`.

    Both appear by rename when all is written, the data set last. A planet's content depends on `seed`, its split and
    its index alone. InputError if either folder exists and is not empty, or if options contradict each other.
    """
    root = Path(root).absolute()
    truth = truth_folder(root)
    _check(root, truth, options)
    spectra = read_spectra(options.spectra_file) if options.spectra_file else None
    planets = {split: draw_planets(seed, split, options, spectra) for split in SPLITS}
    everyone = [planet for split in SPLITS for planet in planets[split]]
    with _staging(root) as staging:
        data, hidden = staging / "data", staging / "truth"
        for folder in (data / "train", data / "test", hidden):
            folder.mkdir(parents=True)
        rows = _write_planets(data, everyone, options, seed, workers, progress)
        _write_metadata(data, planets, options)
        files.write_csv(hidden / "test.csv", _labels(planets["test"]))
        files.write_parquet(hidden / "parameters.parquet", pa.Table.from_pylist(rows))
        hidden.rename(truth)
        data.rename(root)
    return SimulatedDataset(
        root=root,
        truth=truth,
        train_ids=tuple(planet.planet_id for planet in planets["train"]),
        test_ids=tuple(planet.planet_id for planet in planets["test"]),
        visits=sum(len(planet.mid_time_h) for planet in everyone),
    )


def draw_planets(
    seed: int, split: Split, options: SimulationOptions, spectra: Floats | None
) -> tuple[SimulatedPlanet, ...]:
    """The planets of one split in the order of their ids."""
    count = options.train_planets if split == "train" else options.test_planets
    ids = _planet_ids(seed, options.train_planets, options.test_planets)[split][:count]
    drawn = (draw_planet(seed, split, i, planet_id, options, spectra) for i, planet_id in enumerate(ids))
    return tuple(sorted(drawn, key=lambda planet: int(planet.planet_id)))


def _planet_ids(seed: int, train: int, test: int) -> dict[Split, list[str]]:
    """Random numbers below 2^32, each split's own; a number that comes twice is counted up."""
    taken: set[int] = set()
    ids: dict[Split, list[str]] = {}
    for split, count in zip(SPLITS, (train, test), strict=True):
        ids[split] = []
        for index in range(count):
            number = int(generator(seed, split, index, ID_STREAM).integers(1, LARGEST_ID))
            while number in taken:
                number += 1
            taken.add(number)
            ids[split].append(str(number))
    return ids


def _check(root: Path, truth: Path, options: SimulationOptions) -> None:
    for folder in (root, truth):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(folder, "a new or empty folder", "one with content", "Choose another folder or remove it.")
    if options.drift_min > options.drift_max:
        raise InputError(
            "simulation.drift_min", f"at most drift_max = {options.drift_max}", f"{options.drift_min}", "Lower it."
        )
    for instrument in INSTRUMENTS:
        pairs = options.pairs(instrument.name)
        if pairs < MINIMUM_PAIRS:
            raise InputError(
                "simulation.thin", f"{MINIMUM_PAIRS} {instrument.name} pairs to remain", str(pairs), "Thin less."
            )


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """A temporary sibling of `root`, removed with whatever is left in it."""
    root.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_planets(
    data: Path,
    planets: Sequence[SimulatedPlanet],
    options: SimulationOptions,
    seed: int,
    workers: int,
    progress: Progress | None,
) -> list[Row]:
    """Frames of all planets; the rows of parameters.parquet in the order of `planets`."""
    rows: dict[str, list[Row]] = {}
    for done, (planet_id, planet_rows) in enumerate(_finished(data, planets, options, seed, workers), start=1):
        rows[planet_id] = planet_rows
        if progress is not None:
            progress(done, len(planets))
    return [row for planet in planets for row in rows[planet.planet_id]]


def _finished(
    data: Path, planets: Sequence[SimulatedPlanet], options: SimulationOptions, seed: int, workers: int
) -> Iterator[tuple[str, list[Row]]]:
    if workers <= 1:
        for planet in planets:
            yield planet.planet_id, write_planet(data, planet, options, seed)
        return
    with ProcessPoolExecutor(min(workers, len(planets)), mp_context=get_context("spawn")) as pool:
        pending = {pool.submit(write_planet, data, planet, options, seed): planet.planet_id for planet in planets}
        try:
            for future in as_completed(pending):
                yield pending[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_planet(data: Path, planet: SimulatedPlanet, options: SimulationOptions, seed: int) -> list[Row]:
    """All files of one planet; its rows of parameters, one per visit."""
    folder = data / planet.split / planet.planet_id
    drifts: dict[tuple[int, str], Drift] = {}
    for instrument in INSTRUMENTS:
        detector = planet_detector(seed, planet, instrument, options)
        delivered = thin_detector(detector.frames, options.thinning(instrument.name))
        for visit in range(len(planet.mid_time_h)):
            counts, drifts[visit, instrument.name] = simulate_exposure(
                seed, planet, visit, instrument, detector, options
            )
            files.write_signal(folder, instrument, visit, counts)
            files.write_calibration(folder / f"{instrument.name}_calibration_{visit}", delivered)
    return [
        _parameters(planet, visit, drifts[visit, FGS1.name], drifts[visit, AIRS.name])
        for visit in range(len(planet.mid_time_h))
    ]


def _parameters(planet: SimulatedPlanet, visit: int, fgs1: Drift, airs: Drift) -> Row:
    row: Row = {
        "split": planet.split,
        "planet_id": planet.planet_id,
        "visit": visit,
        "mid_time_h": planet.mid_time_h[visit],
        "duration_h": planet.duration_h,
        "period_d": planet.orbit.period_d,
        "sma": planet.orbit.sma,
        "inclination_deg": planet.orbit.inclination_deg,
        "impact_parameter": planet.orbit.impact_parameter,
        "mean_depth": float(planet.depth[1:].mean()),
        "brightness": planet.star.brightness,
        "u1_shift": planet.limb_darkening.u1_shift,
        "u2_shift": planet.limb_darkening.u2_shift,
        "fgs1_drift": fgs1.amplitude,
        "airs_drift": airs.amplitude,
    }
    atmosphere = planet.atmosphere
    for molecule in MOLECULES:
        row[f"log10_{molecule}"] = atmosphere.abundance_dex[molecule] if atmosphere else np.nan
    row["log10_haze"] = atmosphere.haze_dex if atmosphere else np.nan
    row["log10_cloud"] = atmosphere.cloud_dex if atmosphere else np.nan
    row["depth_per_efold"] = atmosphere.depth_per_efold if atmosphere else np.nan
    return row


def _labels(planets: Sequence[SimulatedPlanet]) -> pa.Table:
    return files.spectra_table([p.planet_id for p in planets], np.stack([p.depth for p in planets]))


def _write_metadata(data: Path, planets: dict[Split, tuple[SimulatedPlanet, ...]], options: SimulationOptions) -> None:
    def adc(instrument: Instrument) -> Adc:
        return thin_adc(Adc(options.gain, options.offset), options.thinning(instrument.name))

    axes = [time_axis(i, options.pairs(i.name), options.window_h) for i in (FGS1, AIRS)]
    files.write_csv(data / "adc_info.csv", files.adc_table(adc(FGS1), adc(AIRS)))
    files.write_parquet(data / "axis_info.parquet", files.axis_table(*axes))
    files.write_csv(data / "wavelengths.csv", files.wavelength_table())
    files.write_csv(data / "train.csv", _labels(planets["train"]))
    for split in SPLITS:
        files.write_csv(data / f"{split}_star_info.csv", files.star_table([p.star_row() for p in planets[split]]))
    files.write_csv(data / "sample_submission.csv", files.sample_submission([p.planet_id for p in planets["test"]]))
