"""Calibrated visits on disk: one Zarr v3 store per visit, one group per instrument, statistics as JSON beside it.

    cube.zarr/                planet_id, visit and the caller's attributes
        FGS1/ AIRS-CH0/       flux, variance, quality (time, wavelength); time, n_pairs (time); wavelength, foreground
                              (wavelength); the channels (time)
    statistics.json           what each step of the kill-chain did, and the summary numbers

Every chunk carries two checksums (Zstandard's of the content, CRC-32C of the compressed bytes), and every chunk is
written, even if it is all fill value, so that a missing one is noticed: Zarr itself would read it as fill value.
The same visit gives the same bytes. xarray reads the cubes, too:
`xarray.open_zarr(folder / "cube.zarr", group="AIRS-CH0", consolidated=False)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr
from dask.base import compute
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from spectramind.cubes.options import CubeOptions
from spectramind.errors import StoreError
from spectramind.instruments import Instrument
from spectramind.types import CalibratedVisit, LightCurve, Quality, StepStatistics

CUBE = "cube.zarr"
STATISTICS = "statistics.json"
_FLAGS = [flag for flag in Quality if flag]


@dataclass(frozen=True)
class Variable:
    """An array of a cube: its name there, its axes, unit (UDUNITS) and long name."""

    name: str
    axes: tuple[str, ...]
    units: str
    long_name: str


VARIABLES = {
    "flux": Variable("flux", ("time", "wavelength"), "electron", "mean signal per CDS pair"),
    "variance": Variable("variance", ("time", "wavelength"), "electron2", "variance of the mean signal"),
    "quality": Variable("quality", ("time", "wavelength"), "1", "quality flags"),
    "time_h": Variable("time", ("time",), "h", "middle of the time bin"),
    "wavelength_um": Variable("wavelength", ("wavelength",), "um", "wavelength"),
    "n_pairs": Variable("n_pairs", ("time",), "1", "CDS pairs averaged in the time bin"),
    "foreground": Variable("foreground", ("wavelength",), "electron", "foreground subtracted per CDS pair"),
}
"""By field of `LightCurve`."""


def write_cube(
    folder: Path, visit: CalibratedVisit, attributes: Mapping[str, Any], options: CubeOptions | None = None
) -> None:
    """Write `folder/cube.zarr` and `folder/statistics.json`.

    `attributes` (JSON values, such as the data set's revision) go to the root of the cube. Raises ValueError for arrays
    whose shapes disagree, FileExistsError if there is a cube already, OSError if it cannot be written.
    """
    options = options or CubeOptions()
    root = zarr.create_group(
        folder / CUBE,
        zarr_format=3,
        attributes={
            **attributes,
            "planet_id": visit.planet_id,
            "visit": visit.visit,
            "instruments": list(visit.curves),
        },
    )
    sources: list[NDArray[Any]] = []
    targets: list[Any] = []
    for name, curve in visit.curves.items():
        group = root.create_group(
            name, attributes={"instrument": asdict(curve.instrument), "channels": list(curve.channels)}
        )
        for variable, values in _variables(curve):
            sources.append(values)
            targets.append(_create_array(group, variable, values, options))
    blocks = [
        da.from_array(source, chunks=target.chunks)  # type: ignore[no-untyped-call]
        for source, target in zip(sources, targets, strict=True)
    ]
    da.store(blocks, targets, lock=False, scheduler="synchronous")
    statistics = {
        "steps": {name: [_encode(asdict(step)) for step in steps] for name, steps in visit.steps.items()},
        "summary": {name: _encode(summary) for name, summary in visit.summary.items()},
    }
    (folder / STATISTICS).write_text(json.dumps(statistics, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_cube(folder: Path) -> CalibratedVisit:
    """The visit that `write_cube` wrote, bit for bit.

    Raises StoreError naming the folder if a chunk is missing or damaged, or the cube cannot be read.
    """
    try:
        root = zarr.open_group(folder / CUBE, mode="r", zarr_format=3)
        attributes: dict[str, Any] = root.attrs.asdict()
        curves = {name: _read_curve(root[name]) for name in attributes["instruments"]}
        statistics = json.loads((folder / STATISTICS).read_bytes())
        return CalibratedVisit(
            planet_id=attributes["planet_id"],
            visit=attributes["visit"],
            curves=curves,
            steps={
                name: tuple(StepStatistics(**_decode(step)) for step in steps)
                for name, steps in statistics["steps"].items()
            },
            summary={name: _decode(summary) for name, summary in statistics["summary"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise StoreError(
            f"{folder}: the calibrated visit cannot be read ({error}). Remove the folder and run again."
        ) from error


def _variables(curve: LightCurve) -> list[tuple[Variable, NDArray[Any]]]:
    """All arrays of a light curve, checked against each other's shapes."""
    named = [(variable, np.asarray(getattr(curve, field))) for field, variable in VARIABLES.items()]
    for name, values in curve.channels.items():
        if name in {variable.name for variable in VARIABLES.values()}:
            raise ValueError(f"a channel cannot be called {name}")
        units = "pixel" if name.startswith(("centroid", "jitter")) else "1"
        named.append((Variable(name, ("time",), units, name.replace("_", " ")), np.asarray(values)))
    sizes = {"time": len(curve.time_h), "wavelength": len(curve.wavelength_um)}
    for variable, values in named:
        expected = tuple(sizes[axis] for axis in variable.axes)
        if values.shape != expected:
            raise ValueError(f"{curve.instrument.name} {variable.name} has shape {values.shape}, not {expected}")
    return named


def _create_array(group: zarr.Group, variable: Variable, values: NDArray[Any], options: CubeOptions) -> zarr.Array[Any]:
    attributes: dict[str, Any] = {"units": variable.units, "long_name": variable.long_name}
    if variable.name == "quality":
        attributes["flag_masks"] = [int(flag) for flag in _FLAGS]
        attributes["flag_meanings"] = " ".join(str(flag.name).lower() for flag in _FLAGS)
    floating = np.issubdtype(values.dtype, np.floating)
    return group.create_array(
        variable.name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=tuple(max(1, min(options.time_chunk, size)) if axis == "time" else max(1, size)
                     for axis, size in zip(variable.axes, values.shape, strict=True)),
        serializer=BytesCodec(endian="little" if values.dtype.itemsize > 1 else None),
        compressors=[ZstdCodec(level=options.compression_level, checksum=True), Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},  # no folders inside an array's
        fill_value=np.nan if floating else 0,
        dimension_names=variable.axes,
        attributes=attributes,
        config={"write_empty_chunks": True},
    )  # fmt: skip


def _read_curve(group: Any) -> LightCurve:
    channels = list(group.attrs["channels"])
    names = [variable.name for variable in VARIABLES.values()] + channels
    arrays = [group[name] for name in names]
    for array in arrays:
        if array.nchunks_initialized != array.nchunks:
            raise ValueError(f"{array.path}: {array.nchunks - array.nchunks_initialized} chunks are missing")
    values = compute(*[da.from_zarr(array) for array in arrays], scheduler="synchronous")  # type: ignore[no-untyped-call]
    by_name = dict(zip(names, values, strict=True))
    instrument = Instrument(**group.attrs["instrument"])
    return LightCurve(
        instrument=instrument,
        **{field: by_name[variable.name] for field, variable in VARIABLES.items()},
        channels={name: by_name[name] for name in channels},
    )


def _encode(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinities: they are written as words that `float` understands."""
    return {
        name: str(value) if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in row.items()
    }


def _decode(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: float(value) if value in ("nan", "inf", "-inf") else value for name, value in row.items()}
