"""`covariance.zarr`: covariances of predicted spectra, as factors and a diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from spectramind.errors import InputError
from spectramind.types import Floats
from spectramind.uncertainty.low_rank import LowRank

COVARIANCE = "covariance.zarr"


def write_covariance(path: Path, planet_ids: Sequence[str], covariance: LowRank) -> None:
    """A Zarr group of float32 `factors` (planets, bins, rank) and `diagonal` (planets, bins), checksummed chunks."""
    import zarr
    from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

    attributes: dict[str, Any] = {
        "planet_ids": list(planet_ids),
        "units": "1",
        "long_name": "covariance of depths: factors @ factors.T + diag(diagonal) of each planet",
    }
    group = zarr.create_group(path, zarr_format=3, attributes=attributes)
    arrays = {"factors": covariance.factors, "diagonal": covariance.diagonal}
    for name, values in arrays.items():
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=(min(len(values), 64), *values.shape[1:]),
            dtype="float32",
            serializer=BytesCodec(endian="little"),
            compressors=[ZstdCodec(level=3, checksum=True), Crc32cCodec()],
            dimension_names=("planet", "bin", "factor")[: values.ndim],
        )
        array[:] = np.asarray(values, dtype=np.float32)


def read_covariance(path: Path, planet_ids: Sequence[str]) -> LowRank:
    """Covariances of these planets from the Zarr group that a run wrote. Raises InputError."""
    import zarr

    try:
        group = zarr.open_group(path, mode="r")
    except (OSError, zarr.errors.ContainsArrayError) as error:
        expected = "a Zarr group of factors and diagonal"
        raise InputError(path, expected, type(error).__name__, "Predict again.") from error
    listed = [str(planet_id) for planet_id in cast("list[str]", group.attrs["planet_ids"])]
    unknown = sorted(set(planet_ids) - set(listed))
    if unknown:
        raise InputError(path, "the covariance of all predicted planets", f"none of {unknown[0]}", "Predict again.")
    rows = np.array([listed.index(planet_id) for planet_id in planet_ids])

    def values(name: str) -> Floats:
        array = cast("zarr.Array[Any]", group[name])
        found: Floats = np.asarray(array[:], dtype=float)[rows]
        return found

    return LowRank(values("factors"), values("diagonal"))
