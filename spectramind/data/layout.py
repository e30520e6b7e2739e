"""Where a challenge data set keeps what, and what its metadata say.

The 2025 edition has one row of ADC constants, star tables and visits numbered `_0`, `_1`; the 2024 edition has ADC
constants per planet, no star table and a single visit without a number. Frame counts, time axes, gains and wavelengths
are read from the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from spectramind.data.parquet import read_columns
from spectramind.data.tables import planet_identifier, read_table
from spectramind.errors import InputError, QuarantineError
from spectramind.instruments import AIRS, INSTRUMENTS, N_WAVELENGTHS, Instrument
from spectramind.types import Adc, Floats, Star, TimeAxis

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
CALIBRATION_FILES = ("dark", "dead", "flat", "linear_corr", "read")
VISIT_FILES = tuple(
    f"{instrument.name}_{kind}" for instrument in INSTRUMENTS for kind in ("signal", *CALIBRATION_FILES)
)
WAVELENGTH_COLUMNS = tuple(f"wl_{number}" for number in range(1, N_WAVELENGTHS + 1))
STAR_COLUMNS = ("Rs", "Ms", "Ts", "Mp", "e", "P", "sma", "i")
LONGEST_AXIS = 10_000_000
"""Frames; a footer that claims more is refused before it is read."""
TYPICAL_STAR = Star("", Rs=1.0, Ms=1.0, Ts=5772.0, Mp=1.0, e=0.0, P=4.0, sma=10.0, i=89.0)
"""A Sun with a hot Jupiter."""
_SECONDS_PER_HOUR, _DAYS_PER_YEAR, _SOLAR_RADII_PER_AU = 3600.0, 365.25, 215.03


@dataclass(frozen=True)
class Dataset:
    """A data set whose metadata have been checked. `issues` holds non-fatal findings by planet id."""

    root: Path
    edition: str
    wavelengths_um: Floats
    axes: Mapping[str, TimeAxis]
    issues: Mapping[str, tuple[str, ...]]
    _planets: Mapping[str, tuple[str, ...]] = field(repr=False)
    _stars: Mapping[tuple[str, str], Star] = field(repr=False)
    _adc: Mapping[tuple[str, str, str], Adc] = field(repr=False)
    _labels: tuple[tuple[str, ...], Floats] | None = field(repr=False)

    def planets(self, split: Split) -> tuple[str, ...]:
        """Planet ids of a split in table order; train planets without frames or labels are in `issues` instead."""
        return self._planets[split]

    def star(self, split: Split, planet_id: str) -> Star:
        """The planet's row of the star table. InputError if there is none."""
        try:
            return self._stars[split, planet_id]
        except KeyError:
            table = self.root / f"{split}_star_info.csv"
            raise InputError(table, f"a row for planet {planet_id}", "none", "Add the star's parameters.") from None

    def adc(self, split: Split, planet_id: str, instrument: Instrument) -> Adc:
        """Gain and offset of the analog-to-digital converter for a planet's frames."""
        key = (split, "" if self.edition == "2025" else planet_id, instrument.name)
        return self._adc[key]

    def labels(self) -> tuple[tuple[str, ...], Floats]:
        """Planet ids and true transit depths (planets, 283) of the train split. InputError if the table is absent."""
        if self._labels is None:
            raise InputError(
                _labels_path(self.root, self.edition), "a table of true depths", "nothing", "Point data.root at it."
            )
        return self._labels

    def visits(self, split: Split, planet_id: str) -> tuple[int, ...]:
        """Numbers of the visits of which any file is present; (0,) where there is none, so that reading names it."""
        if self.edition == "2024":
            return (0,)
        folder = self.root / split / planet_id
        names = "|".join(re.escape(instrument.name) for instrument in INSTRUMENTS)
        pattern = re.compile(rf"(?:{names})_(?:signal_([0-9]{{1,3}})\.parquet|calibration_([0-9]{{1,3}}))")
        matches = (pattern.fullmatch(entry.name) for entry in folder.iterdir()) if folder.is_dir() else ()
        return tuple(sorted({int(match[1] or match[2]) for match in matches if match})) or (0,)

    def visit_files(self, split: Split, planet_id: str, visit: int) -> dict[str, Path]:
        """The twelve files of a visit, named `FGS1_signal`, `FGS1_dark`, …, `AIRS-CH0_read`.

        They need not exist. QuarantineError if one leads out of the split, for instance by a symbolic link.
        """
        folder = self.root / split / planet_identifier(planet_id, self.root)
        suffix = f"_{visit}" if self.edition == "2025" else ""
        files = {}
        for instrument in INSTRUMENTS:
            files[f"{instrument.name}_signal"] = folder / f"{instrument.name}_signal{suffix}.parquet"
            for kind in CALIBRATION_FILES:
                path = folder / f"{instrument.name}_calibration{suffix}" / f"{kind}.parquet"
                files[f"{instrument.name}_{kind}"] = path
        split_folder = (self.root / split).resolve()  # the split itself may be a mount or a link that its owner made
        for path in files.values():
            if not _stays_inside(path, split_folder):
                raise QuarantineError(
                    path, f"a file under {self.root / split}", "a link out of it", "Copy the file there."
                )
        return files

    def metadata_files(self) -> dict[str, Path]:
        """The metadata tables that exist, by file name."""
        names = ["adc_info.csv", "train_adc_info.csv", "test_adc_info.csv", "axis_info.parquet", "wavelengths.csv"]
        names += ["train.csv", "train_labels.csv", "train_star_info.csv", "test_star_info.csv"]
        return {name: self.root / name for name in names if (self.root / name).is_file()}


def open_dataset(root: Path) -> Dataset:
    """Read and check the metadata of the data set in `root`. InputError says what is wrong with which file."""
    root = Path(root).resolve()
    if not root.is_dir():
        raise InputError(
            root, "the folder of a data set", "nothing", "Set data.root to the folder with axis_info.parquet."
        )
    edition = _edition(root)
    wavelengths = _wavelengths(root / "wavelengths.csv")
    axes = _axes(root / "axis_info.parquet", wavelengths)
    issues: dict[str, list[str]] = {}
    adc = _adc_2025(root) if edition == "2025" else _adc_2024(root)
    stars: dict[tuple[str, str], Star] = {
        (split, star.planet_id): star
        for split in SPLITS
        if (path := root / f"{split}_star_info.csv").is_file()
        for star in _stars(path, issues)
    }
    labels_path = _labels_path(root, edition)
    labels = _labels(labels_path) if labels_path.is_file() else None
    listed: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        tabled = [planet for kind, planet in stars if kind == split]
        if edition == "2024":
            tabled = list(dict.fromkeys(planet for kind, planet, _ in adc if kind == split))
        listed[split] = tuple(tabled)
    planets = {
        "train": _train_planets(root, listed["train"], labels, issues),
        "test": _test_planets(root, listed["test"]),
    }
    if not any(planets.values()):
        raise InputError(root, "planets to train on or to predict", "none", "Set data.root to a complete data set.")
    frozen = MappingProxyType({planet: tuple(found) for planet, found in issues.items()})
    return Dataset(root, edition, wavelengths, axes, frozen, planets, stars, adc, labels)


def _edition(root: Path) -> str:
    if (root / "adc_info.csv").is_file():
        return "2025"
    if any((root / f"{split}_adc_info.csv").is_file() for split in SPLITS):
        return "2024"
    raise InputError(root / "adc_info.csv", "the table of ADC constants", "nothing", "Set data.root to a data set.")


def _labels_path(root: Path, edition: str) -> Path:
    return root / ("train.csv" if edition == "2025" else "train_labels.csv")


def _stays_inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root)


def _wavelengths(path: Path) -> Floats:
    table = read_table(path)
    if table.columns != WAVELENGTH_COLUMNS:
        raise InputError(path, "columns wl_1 to wl_283 in order", f"{len(table.columns)} columns", "Restore the file.")
    values: Floats = table.floats(WAVELENGTH_COLUMNS)[0]
    if not (np.isfinite(values).all() and values[0] > 0 and (np.diff(values) > 0).all()):
        raise InputError(path, "positive ascending wavelengths", "another order or gaps", "Restore the file.")
    return values


def _axes(path: Path, wavelengths: Floats) -> dict[str, TimeAxis]:
    try:
        columns = read_columns(path, LONGEST_AXIS)
    except QuarantineError as error:  # damaged metadata concern every planet
        raise InputError(error.where, error.expected, error.found, error.cure) from None
    names = [f"{instrument.name}-axis0-h" for instrument in INSTRUMENTS]
    names += [f"{AIRS.name}-axis2-um", f"{AIRS.name}-integration_time"]
    missing = [name for name in names if name not in columns]
    if missing:
        raise InputError(path, f"columns {', '.join(missing)}", f"columns {', '.join(columns)}", "Restore the file.")
    dispersion = columns[f"{AIRS.name}-axis2-um"]
    if dispersion.shape != (AIRS.columns,):
        raise InputError(path, f"{AIRS.columns} detector columns", str(len(dispersion)), "Restore the file.")
    measured = dispersion[AIRS.bin_columns][::-1]
    if not np.allclose(measured, wavelengths[AIRS.spectral_slice], rtol=1e-4, atol=0):
        raise InputError(
            path,
            f"columns {AIRS.first} to {AIRS.last} reversed to be wl_2 to wl_283 of wavelengths.csv",
            "other wavelengths",
            "Restore both files.",
        )
    return {
        instrument.name: time_axis(
            columns[f"{instrument.name}-axis0-h"], columns.get(f"{instrument.name}-integration_time"), path
        )
        for instrument in INSTRUMENTS
    }


def time_axis(stamps_h: Floats, integration_s: Floats | None, where: str | Path) -> TimeAxis:
    """Start and integration time of each read.

    Reads come in pairs of one detector ramp. A stamp is the end of the short read, so a ramp starts one short
    integration before it. The listed time of the long read counts from the short one, whose time is added, as in the
    hosts' own calibration. Where no integration times are given (FGS1), the long read ends the distance of the two
    stamps after the short one, and the first stamp is the short read's own integration time.
    InputError if the frames do not come in such pairs.
    """
    if stamps_h.size < 4 or stamps_h.size % 2 or not (np.diff(stamps_h) > 0).all():
        raise InputError(where, "ascending times of pairs of reads", f"{stamps_h.size} times", "Restore the file.")
    stamps = stamps_h.reshape(-1, 2)
    if integration_s is None:
        gap = float(np.median(stamps[:, 1] - stamps[:, 0])) * _SECONDS_PER_HOUR
        first = float(stamps[0, 0]) * _SECONDS_PER_HOUR
        short = min(first, gap) if first > 0 else gap
        pairs, short_read = np.tile([short, short + gap], (len(stamps), 1)), 0
    else:
        pairs, short_read = _listed_integration(stamps_h, integration_s, where)
    start = stamps[:, short_read] - pairs[:, short_read] / _SECONDS_PER_HOUR
    return TimeAxis(np.repeat(start, 2), pairs.ravel())


def _listed_integration(stamps_h: Floats, integration_s: Floats, where: str | Path) -> tuple[Floats, int]:
    """Integration times (pairs, 2) since the ramp's start, and which of the two reads is the short one."""
    if integration_s.shape != stamps_h.shape or not (np.isfinite(integration_s) & (integration_s > 0)).all():
        raise InputError(where, "a positive integration time for every read", "another table", "Restore the file.")
    listed = integration_s.reshape(-1, 2)
    short_read = int(listed[0].argmin())
    short, long = listed[:, short_read], listed[:, 1 - short_read]
    if not (short < long).all():
        raise InputError(where, "a short and a long read in each pair", "another order", "Restore the file.")
    pairs = listed.copy()
    pairs[:, 1 - short_read] += short
    return pairs, short_read


def _adc_columns() -> tuple[str, ...]:
    return tuple(f"{instrument.name}_adc_{what}" for instrument in INSTRUMENTS for what in ("offset", "gain"))


def _adc_row(path: Path, values: Floats) -> dict[str, Adc]:
    constants = dict(zip(_adc_columns(), (float(value) for value in values), strict=True))
    found = {}
    for instrument in INSTRUMENTS:
        gain, offset = (constants[f"{instrument.name}_adc_{what}"] for what in ("gain", "offset"))
        if not (np.isfinite(gain) and gain > 0 and np.isfinite(offset)):
            expected = f"a finite offset and a positive gain of {instrument.name}"
            raise InputError(path, expected, f"gain {gain}, offset {offset}", "Restore the file.")
        found[instrument.name] = Adc(gain, offset)
    return found


def _adc_2025(root: Path) -> dict[tuple[str, str, str], Adc]:
    table = read_table(root / "adc_info.csv")
    values = table.floats(_adc_columns())
    if len(values) != 1:
        raise InputError(table.path, "one row", f"{len(values)} rows", "Restore the file.")
    return {(split, "", name): adc for name, adc in _adc_row(table.path, values[0]).items() for split in SPLITS}


def _adc_2024(root: Path) -> dict[tuple[str, str, str], Adc]:
    constants: dict[tuple[str, str, str], Adc] = {}
    for split in SPLITS:
        path = root / f"{split}_adc_info.csv"
        if path.is_file():
            table = read_table(path)
            for planet, values in zip(table.planet_ids(), table.floats(_adc_columns()), strict=True):
                for name, adc in _adc_row(path, values).items():
                    constants[split, planet, name] = adc
    return constants


def _stars(path: Path, issues: dict[str, list[str]]) -> list[Star]:
    table = read_table(path)
    stars = []
    for planet, values in zip(table.planet_ids(), table.floats(STAR_COLUMNS), strict=True):
        star = Star(planet, *(float(value) for value in values))
        stars.append(star)
        if doubts := implausible(star):
            issues.setdefault(planet, []).append(f"implausible star row: {', '.join(doubts)}")
    return stars


def implausible(star: Star) -> tuple[str, ...]:
    """Names of the star's parameters that lie outside what a transiting planet's row can hold, NaN included."""
    plausible = {
        "Rs": 0.05 < star.Rs < 100,
        "Ms": 0.05 < star.Ms < 50,
        "Ts": 1500 < star.Ts < 50_000,
        "Mp": 0 < star.Mp < 1e5,
        "e": 0 <= star.e < 1,
        "P": 0.05 < star.P < 1e5,
        "sma": 1 < star.sma < 1e5,
        "i": 45 < star.i <= 90,
    }
    return tuple(name for name, good in plausible.items() if not good)


def usable_star(star: Star) -> Star:
    """`star` with stand-ins for what is `implausible`, so that its planet can be fitted and predicted.

    An inclination over 90 degrees becomes its mirror image; period or semi-major axis follow from each other by
    Kepler's third law; everything else becomes a typical host's.
    """
    doubtful = implausible(star)
    values = {name: getattr(TYPICAL_STAR if name in doubtful else star, name) for name in STAR_COLUMNS}
    if "i" in doubtful and 90 < star.i < 135:
        values["i"] = 180 - star.i
    axis_per_period = _SOLAR_RADII_PER_AU * values["Ms"] ** (1 / 3) / values["Rs"]
    if "sma" in doubtful:
        values["sma"] = axis_per_period * (values["P"] / _DAYS_PER_YEAR) ** (2 / 3)
    elif "P" in doubtful:
        values["P"] = _DAYS_PER_YEAR * (values["sma"] / axis_per_period) ** 1.5
    return Star(star.planet_id, **values)


def _labels(path: Path) -> tuple[tuple[str, ...], Floats]:
    table = read_table(path)
    ids = table.planet_ids()
    depths = table.floats(WAVELENGTH_COLUMNS)
    bad = np.argwhere(~((depths > 0) & (depths < 1)))
    if bad.size:
        row, column = bad[0]
        raise InputError(
            path,
            "depths between 0 and 1",
            f"{depths[row, column]} for planet {ids[row]}, {WAVELENGTH_COLUMNS[column]}",
            "Correct or remove this row.",
        )
    return ids, depths


def _folders(root: Path, split: str) -> set[str]:
    folder = root / split
    return {entry.name for entry in folder.iterdir() if entry.is_dir()} if folder.is_dir() else set()


def _train_planets(
    root: Path,
    tabled: Iterable[str],
    labels: tuple[tuple[str, ...], Floats] | None,
    issues: dict[str, list[str]],
) -> tuple[str, ...]:
    present, labelled, rows = _folders(root, "train"), labels[0] if labels else (), tuple(tabled)
    sources = {"no folder of frames": present, "no row of labels": set(labelled), "no row of metadata": set(rows)}
    everyone = dict.fromkeys((*rows, *labelled, *sorted(present)))
    for planet in everyone:
        for finding, source in sources.items():
            if planet not in source:
                issues.setdefault(planet, []).append(finding)
    return tuple(planet for planet in everyone if all(planet in source for source in sources.values()))


def _test_planets(root: Path, tabled: tuple[str, ...]) -> tuple[str, ...]:
    folder, present = root / "test", _folders(root, "test")
    absent = [planet for planet in tabled if planet not in present]
    extra = sorted(present - set(tabled))
    if absent:
        raise InputError(
            folder, "a folder for each test planet", f"none for {', '.join(absent[:5])}", "Add the frames."
        )
    if extra:
        raise InputError(
            folder,
            "metadata for each folder",
            f"{', '.join(map(ascii, extra[:5]))} in no table",
            "Add rows or remove them.",
        )
    return tabled
