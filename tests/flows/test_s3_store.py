"""Calibration with its cubes and fits in S3 storage, on a real server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from typer.testing import CliRunner, Result

from flows.cli import app
from spectramind.provenance.s3 import S3Path
from spectramind.provenance.units import MANIFEST, parse_manifest
from spectramind.simulation.dataset import SimulatedDataset

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


def calibrate(simulated: SimulatedDataset, folder: Path, store: str) -> Result:
    places = (f"outputs.store={store}", f"outputs.cache={folder / 'cache'}", f"outputs.dir={folder / 'run'}")
    arguments = (f"data.root={simulated.root}", *places, "data.max_planets=2", "dask.scheduler=synchronous")
    return CliRunner().invoke(app, ["calibrate", *arguments])


def objects(bucket: Any) -> dict[str, tuple[str, Any]]:
    """Entity tag and time of each object of the units."""
    return {
        item.key: (item.e_tag, item.last_modified)
        for item in bucket.objects.filter(Prefix="v50/")
        if "/." not in item.key
    }


def digests(bucket: Any, store: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The units' digests by their place, in the bucket and in a store on disk."""
    there = S3Path(f"s3://{bucket.name}/v50")
    manifests = {name: (there / name).read_bytes() for name in there.objects() if name.endswith(MANIFEST)}
    in_bucket = {name: parse_manifest(there / name, content)["digest"] for name, content in manifests.items()}
    files = [file for kind in ("cubes", "fits") for file in (store / kind).rglob(MANIFEST)]
    on_disk = {str(file.relative_to(store)): parse_manifest(file, file.read_bytes())["digest"] for file in files}
    return in_bucket, on_disk


def test_a_store_in_s3_storage(
    bucket: Any, simulated: SimulatedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"s3://{bucket.name}/v50"
    done = calibrate(simulated, tmp_path, store)
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "cache" / "cubes").exists()
    assert calibrate(simulated, tmp_path / "disk", str(tmp_path / "disk" / "store")).exit_code == 0
    in_bucket, on_disk = digests(bucket, tmp_path / "disk" / "store")
    assert in_bucket == on_disk
    assert len(in_bucket) == 12  # two train and two test planets: two cubes and a fit each
    written = "".join(file.read_text(errors="ignore") for file in (tmp_path / "run").rglob("*") if file.is_file())
    assert store in (tmp_path / "run" / "resolved_config.yaml").read_text(encoding="utf-8")
    assert "oftests" not in written

    before = objects(bucket)
    assert calibrate(simulated, tmp_path, store).exit_code == 0
    assert objects(bucket) == before

    cubes = [key.removesuffix("/zarr.json") for key in before if key.endswith("cube.zarr/zarr.json")]
    fgs1, airs = (next(cube for cube in cubes if f"/{name}/" in cube) for name in ("FGS1", "AIRS-CH0"))
    opened_directly(bucket.name, airs, monkeypatch)

    bucket.Object(f"{fgs1}/FGS1/flux/c.0.0").delete()
    chunk = bucket.Object(f"{airs}/AIRS-CH0/variance/c.0.0")
    content = bytearray(chunk.get()["Body"].read())
    content[100] ^= 1
    chunk.put(Body=bytes(content))
    assert calibrate(simulated, tmp_path, store).exit_code == 0
    after = objects(bucket)
    assert {key: tag for key, (tag, _) in after.items() if not key.endswith(MANIFEST)} == {
        key: tag for key, (tag, _) in before.items() if not key.endswith(MANIFEST)
    }
    redone = {key.split("/cube.zarr")[0] for key in after if after[key] != before[key] and "/cube.zarr" in key}
    assert redone == {cube.removesuffix("/cube.zarr") for cube in (fgs1, airs)}


def opened_directly(bucket: str, cube: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user does who has registered obstore with fsspec."""
    import obstore.fsspec

    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    obstore.fsspec.register("s3", asynchronous=True)
    flux = zarr.open(f"s3://{bucket}/{cube}", mode="r")["AIRS-CH0/flux"][:]
    dataset = xr.open_zarr(f"s3://{bucket}/{cube}", group="AIRS-CH0", consolidated=False)
    assert flux.shape[1] == 282
    np.testing.assert_array_equal(dataset["flux"].values, flux)


def test_a_server_that_is_not_there_ends_the_run_with_one_line(
    bucket: Any, simulated: SimulatedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    done = calibrate(simulated, tmp_path, "s3://bucket/v50")
    assert done.exit_code == 2
    assert re.fullmatch(
        r"error: outputs\.store=s3://bucket/v50: cannot be written \(.+\)\. Check AWS_.+\n", done.stderr
    )
    assert "oftests" not in done.stderr
    assert not (tmp_path / "run").exists()
