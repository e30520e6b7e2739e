"""Objects in S3-compatible storage, addressed like files.

Endpoint, region and credentials come from the environment (AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, …) and appear in no message. The library is obstore, the extra `s3`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

from spectramind.errors import SettingsError, StoreError

CURE = "Check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the credentials in the environment."
MARK = ".spectramind"
"""Written to a store when a run begins, to learn whether it can be."""


@dataclass(frozen=True)
class Stored:
    """What the storage says of an object. Its entity tag changes with its content; None if there is none."""

    size: int
    e_tag: str | None


@dataclass(frozen=True)
class S3Path:
    """One object, or all objects below a key: `url` is s3://BUCKET/KEY.

    Every method raises StoreError, naming the URL, if the storage does not answer or refuses.
    """

    url: str

    def __truediv__(self, name: str) -> S3Path:
        return S3Path(f"{self.url.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def read_bytes(self) -> bytes:
        """The object's content. Raises FileNotFoundError if there is no such object."""
        with self._errors("read"):
            return bytes(_library().get(self._bucket, self._key).bytes())

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object's content as text. Raises FileNotFoundError if there is no such object."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> Stored:
        """Put the object, whole or not at all, in the place of one that is there."""
        with self._errors("written"):
            return Stored(len(content), _library().put(self._bucket, self._key, content)["e_tag"])

    def remove(self) -> None:
        """Remove the object if it is there."""
        with self._errors("removed"):
            _library().delete(self._bucket, self._key)

    def objects(self) -> dict[str, Stored]:
        """All objects below this one, by the rest of their key."""
        prefix = f"{self._key}/"
        with self._errors("listed"):
            return {
                entry["path"].removeprefix(prefix): Stored(entry["size"], entry["e_tag"])
                for chunk in _library().list(self._bucket, prefix=self._key)
                for entry in chunk
            }

    def require_writable(self) -> None:
        """Put a small object. Raises SettingsError within seconds if that is not possible."""
        try:
            with self._errors("written"):
                _library().put(_bucket(self._bucket_name, _endpoint(), patient=False), f"{self._key}/{MARK}", b"")
        except StoreError as error:
            raise SettingsError(f"outputs.store={error}") from error

    @property
    def _bucket_name(self) -> str:
        return self.url.removeprefix("s3://").partition("/")[0]

    @property
    def _key(self) -> str:
        return self.url.removeprefix("s3://").partition("/")[2].strip("/")

    @property
    def _bucket(self) -> Any:
        return _bucket(self._bucket_name, _endpoint(), patient=True)

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        failures = _library().exceptions
        try:
            yield
        except (failures.BaseError, OSError) as error:
            if action == "read" and isinstance(error, failures.NotFoundError | FileNotFoundError):
                raise FileNotFoundError(f"{self.url}: no such object") from error
            raise StoreError(f"{self.url}: cannot be {action} ({_reason(error)}). {CURE}") from error


def _reason(error: Exception) -> str:
    """The first line, without the server's document: some servers repeat the access key in it."""
    return str(error).partition("\n")[0].partition("<")[0].strip(" :")


def _endpoint() -> str:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


@lru_cache(maxsize=8)
def _bucket(name: str, endpoint: str, *, patient: bool) -> Any:
    from obstore.store import S3Store

    return S3Store(
        name,
        config={"endpoint": endpoint} if endpoint else {},
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": "5s",
            "timeout": "60s" if patient else "5s",
        },
        retry_config={
            "max_retries": 5 if patient else 0,
            "retry_timeout": timedelta(seconds=120 if patient else 5),
        },
    )


def _library() -> Any:
    try:
        import obstore
        import obstore.exceptions
    except ImportError as error:
        raise SettingsError(
            "outputs.store is in S3 storage, which needs the library obstore: pip install 'spectramind[s3]'"
        ) from error
    return obstore
