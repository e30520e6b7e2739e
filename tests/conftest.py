"""What holds for all tests.

One thread per process for linear algebra: test workers share the cores, and threads that fight are far slower. Examples
of property tests have no deadline: a busy machine is no failure.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from flows.environment import ONE_THREAD

for variable, number in ONE_THREAD.items():
    os.environ.setdefault(variable, number)

settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server of the tests' own."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A new bucket there, as boto3 sees it; the environment names server and credentials."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "accesskeyoftests",
        "AWS_SECRET_ACCESS_KEY": "secretkeyoftests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return boto3.resource("s3").create_bucket(Bucket=f"tests-{secrets.token_hex(6)}")
