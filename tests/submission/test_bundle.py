"""The written submission: complete, reproducible, or not there at all."""

from __future__ import annotations

import hashlib
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from spectramind.errors import InputError, StoreError
from spectramind.submission.bundle import Origin, verify_bundle, write_bundle
from spectramind.submission.checks import check_long_table, check_submission
from spectramind.submission.table import read_long, read_wide
from spectramind.types import Spectra

IDS = ("11", "12", "13")
ORIGIN = Origin(version="1.0", git_commit="abc", config_hash="def")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def spectra(ids: tuple[str, ...] = IDS) -> Spectra:
    rng = np.random.default_rng(1)
    return Spectra(ids, rng.uniform(0.005, 0.03, (len(ids), 283)), rng.uniform(5e-5, 5e-4, (len(ids), 283)))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_complete_bundle(tmp_path: Path) -> None:
    metrics = {"score": 0.6, "coverage": {"95": float("nan")}}
    manifest = write_bundle(tmp_path / "submission", spectra(("13", "11", "12")), IDS, ORIGIN, metrics, MOMENT)
    written = contents(tmp_path / "submission")
    assert set(written) == {"submission.csv", "submission_long.csv", "submission.zip", "manifest.json"}
    assert json.loads(written["manifest.json"]) == manifest
    assert set(manifest) == {
        *("version", "git_commit", "config_hash", "dvc_rev", "docker_image", "generated_at", "files", "metrics"),
        "sha256",
    }
    assert manifest["generated_at"] == "2026-01-02T03:04:05Z"
    assert manifest["dvc_rev"] is None
    assert manifest["metrics"] == {"score": 0.6, "coverage": {"95": None}}
    for name in manifest["files"]:
        assert manifest["sha256"][name] == hashlib.sha256(written[name]).hexdigest()
    with zipfile.ZipFile(tmp_path / "submission" / "submission.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["submission.csv"]
        assert archive.read("submission.csv") == written["submission.csv"]
    wide, long = (
        read(tmp_path / "submission" / name)
        for read, name in ((read_wide, "submission.csv"), (read_long, "submission_long.csv"))
    )
    assert wide.planet_ids == long.planet_ids == IDS
    assert np.array_equal(wide.mean, long.mean)
    assert np.array_equal(wide.sigma, long.sigma)
    assert np.array_equal(wide.mean[0], spectra().mean[1])
    assert check_submission(tmp_path / "submission" / "submission.csv", IDS) == []
    assert check_long_table(tmp_path / "submission" / "submission_long.csv") == []
    assert verify_bundle(tmp_path / "submission") == []


def test_same_numbers_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_bundle(tmp_path / name, spectra(), IDS, ORIGIN, {}, MOMENT)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("value", [-1e-9, np.nan, np.inf])
def test_nothing_is_written_if_the_check_fails(tmp_path: Path, value: float) -> None:
    good = spectra()
    mean = good.mean.copy()
    mean[2, 7] = value
    with pytest.raises(InputError, match="planet 13, column wl_8"):
        write_bundle(tmp_path / "new", Spectra(IDS, mean, good.sigma), IDS, ORIGIN, {})
    assert not (tmp_path / "new").exists()
    write_bundle(tmp_path / "old", good, IDS, ORIGIN, {}, MOMENT)
    before = contents(tmp_path / "old")
    with pytest.raises(InputError):
        write_bundle(tmp_path / "old", Spectra(IDS, mean, good.sigma), IDS, ORIGIN, {})
    assert contents(tmp_path / "old") == before


@pytest.mark.parametrize("ids", [("11", "12"), ("11", "12", "13", "14"), ("11", "12", "12")])
def test_other_planets_than_the_template(tmp_path: Path, ids: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="planet 1"):
        write_bundle(tmp_path / "new", spectra(ids), IDS, ORIGIN, {})
    assert not (tmp_path / "new").exists()


def test_changes_after_writing_are_found(tmp_path: Path) -> None:
    assert verify_bundle(tmp_path) == ["manifest.json: missing, the submission is not complete"]
    write_bundle(tmp_path, spectra(), None, ORIGIN, {})
    with (tmp_path / "submission.csv").open("a") as file:
        file.write("\n")
    (tmp_path / "submission_long.csv").unlink()
    assert verify_bundle(tmp_path) == [
        "submission.csv: changed since the manifest was written",
        "submission_long.csv: missing",
    ]


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="could not be written"):
        write_bundle(tmp_path / "file", spectra(), IDS, ORIGIN, {})


def test_companions_are_listed_and_verified_but_not_zipped(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path, spectra(), IDS, ORIGIN, {}, companions={"certificate.json": b"{}"})
    assert manifest["sha256"]["certificate.json"] == hashlib.sha256(b"{}").hexdigest()
    assert verify_bundle(tmp_path) == []
    (tmp_path / "certificate.json").write_bytes(b"{ }")
    assert verify_bundle(tmp_path) == ["certificate.json: changed since the manifest was written"]
