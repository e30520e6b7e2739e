"""Units in S3 storage, on a real server; boto3 looks at and damages the objects."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spectramind.errors import SettingsError, StoreError
from spectramind.provenance.digests import file_digest
from spectramind.provenance.s3 import S3Path
from spectramind.provenance.s3_units import fetch_unit
from spectramind.provenance.units import (
    UnitResult,
    build_and_read,
    build_unit,
    discard_unit,
    find_digest,
    read_unit,
    unit_path,
    verify_unit,
)

IDENTITY = {"kind": "test", "inputs": {"a": "1"}, "settings": {"b": 2}, "code": "3"}
CONTENT = {"numbers/c.0": bytes(range(256)) * 40, "numbers/zarr.json": b"{}", "empty": b""}


class Builder:
    """Builds the unit of `IDENTITY` in a bucket and counts how often it had to."""

    def __init__(self, bucket: Any) -> None:
        self.target = unit_path(S3Path(f"s3://{bucket.name}/some/store"), IDENTITY)
        self.key = f"some/store/{self.target.name}"
        self.times = 0

    def write(self, folder: Path) -> dict[str, int]:
        self.times += 1
        for name, content in CONTENT.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        return {"files": len(CONTENT)}

    def __call__(self) -> UnitResult:
        return build_unit(self.target, IDENTITY, self.write)


def test_a_unit_is_found_by_its_digest(bucket: Any) -> None:
    build = Builder(bucket)
    made, parent = build(), S3Path(f"s3://{bucket.name}/some/store")
    other = {**IDENTITY, "code": "4"}
    build_unit(unit_path(parent, other), other, build.write)
    found = find_digest(parent, made.digest)
    assert found is not None
    assert (found[0], found[1]["identity"]) == (build.target, IDENTITY)
    assert find_digest(parent, "0" * 64) is None


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_unit_is_built_once_and_is_the_same_as_on_disk(bucket: Any, tmp_path: Path) -> None:
    build = Builder(bucket)
    first, second = build(), build()
    local = build_unit(tmp_path / "unit", IDENTITY, build.write)
    assert (first.computed, second.computed, build.times) == (True, False, 2)
    assert first.digest == second.digest == local.digest
    assert first.details == second.details == {"files": 3}
    assert read_unit(build.target, contents) == CONTENT
    there = {item.key.removeprefix(f"{build.key}/"): item.get()["Body"].read() for item in bucket.objects.all()}
    assert {name: there[name] for name in CONTENT} == CONTENT
    assert sorted(there) == sorted([*CONTENT, "manifest.json"])


def test_the_same_unit_on_this_machine(bucket: Any, tmp_path: Path) -> None:
    build = Builder(bucket)
    digest = build().digest
    copy = fetch_unit(build.target, tmp_path / "copy", IDENTITY)
    assert (copy.digest, verify_unit(tmp_path / "copy")) == (digest, [])
    assert file_digest(tmp_path / "copy" / "numbers" / "c.0") == file_digest_of(CONTENT["numbers/c.0"], tmp_path)
    assert not fetch_unit(build.target, tmp_path / "copy", IDENTITY).computed


def file_digest_of(content: bytes, folder: Path) -> str:
    (folder / "content").write_bytes(content)
    return file_digest(folder / "content")


def flip(bucket: Any, key: str) -> None:
    content = bytearray(bucket.Object(key).get()["Body"].read())
    content[len(content) // 2] ^= 1
    bucket.Object(key).put(Body=bytes(content))


DAMAGES: dict[str, Callable[[Any, str], Any]] = {
    "numbers/c.0 has changed": lambda bucket, key: flip(bucket, f"{key}/numbers/c.0"),
    "numbers/zarr.json is missing": lambda bucket, key: bucket.Object(f"{key}/numbers/zarr.json").delete(),
    "stranger does not belong there": lambda bucket, key: bucket.Object(f"{key}/stranger").put(Body=b"x"),
    "no sound manifest.json": lambda bucket, key: bucket.Object(f"{key}/manifest.json").put(Body=b'{"digest": 1}'),
    "no sound manifest.json ": lambda bucket, key: bucket.Object(f"{key}/manifest.json").delete(),
}


@pytest.mark.parametrize("problem", DAMAGES)
def test_damage_is_found_and_the_unit_built_again(problem: str, bucket: Any) -> None:
    build = Builder(bucket)
    digest = build().digest
    DAMAGES[problem](bucket, build.key)
    assert problem.strip() in "; ".join(verify_unit(build.target))
    with pytest.raises(StoreError, match=r"^s3://\S+: damaged \(.+\)\. Run again"):
        read_unit(build.target, contents)
    again, content = build_and_read(build, contents)
    assert (again.digest, again.computed, build.times) == (digest, True, 2)
    assert content == CONTENT
    assert verify_unit(build.target, full=True) == []


def test_damage_that_the_entity_tag_does_not_tell_is_found_when_the_unit_is_read(bucket: Any) -> None:
    build = Builder(bucket)
    build()
    flip(bucket, f"{build.key}/numbers/c.0")
    manifest = json.loads(bucket.Object(f"{build.key}/manifest.json").get()["Body"].read())
    manifest["outputs"]["numbers/c.0"]["e_tag"] = bucket.Object(f"{build.key}/numbers/c.0").e_tag
    bucket.Object(f"{build.key}/manifest.json").put(Body=json.dumps(manifest).encode())
    assert verify_unit(build.target) == []
    assert build_and_read(build, contents)[1] == CONTENT
    assert build.times == 2


def test_the_same_bytes_under_another_entity_tag_are_sound(bucket: Any) -> None:
    build = Builder(bucket)
    build()
    item = bucket.Object(f"{build.key}/numbers/c.0")
    before, upload = item.e_tag, item.initiate_multipart_upload()
    part = upload.Part(1).upload(Body=CONTENT["numbers/c.0"])
    item = upload.complete(MultipartUpload={"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]})
    item.reload()
    assert item.e_tag != before
    assert verify_unit(build.target) == []
    assert not build().computed


def test_only_damaged_units_are_discarded(bucket: Any) -> None:
    build = Builder(bucket)
    build()
    assert not discard_unit(build.target, only_damaged=True)
    assert discard_unit(build.target)
    assert build().computed


def test_a_writer_that_fails_leaves_nothing(bucket: Any) -> None:
    def fail(folder: Path) -> None:
        (folder / "part").write_bytes(b"1")
        raise ValueError("no frames")

    target = unit_path(S3Path(f"s3://{bucket.name}/failing"), IDENTITY)
    with pytest.raises(ValueError, match="no frames"):
        build_unit(target, IDENTITY, fail)
    assert not list(bucket.objects.all())


def test_a_server_or_bucket_that_is_not_there_is_named_without_the_credentials(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        SettingsError, match=r"^outputs\.store=s3://absent/x: cannot be written \(.+404.+\)\. Check AWS_"
    ):
        S3Path("s3://absent/x").require_writable()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    place = S3Path(f"s3://{bucket.name}/x")
    with pytest.raises(SettingsError, match=r"^outputs\.store=s3://\S+: cannot be written \(.+\)\. Check AWS_") as told:
        place.require_writable()
    assert "oftests" not in str(told.value)
    assert "\n" not in str(told.value)


def test_the_library_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(SettingsError, match=r"needs the library obstore: pip install 'spectramind\[s3\]'"):
        S3Path("s3://bucket/x").require_writable()
