"""What a run shows: artifacts in Prefect's UI, finished folders in the run's directory."""

from __future__ import annotations

import base64
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact


def table(key: str, description: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table in Prefect's UI."""
    create_table_artifact([dict(row) for row in rows], key=key, description=description)


def markdown(key: str, description: str, text: str) -> None:
    """A note in Prefect's UI."""
    create_markdown_artifact(text, key=key, description=description)


def link(key: str, path: Path, text: str) -> None:
    """A link to a file of the run in Prefect's UI."""
    create_link_artifact(path.resolve().as_uri(), link_text=text, key=key, description=f"`{path}`")


def run_directory(path: Path) -> None:
    """A link to the directory of the run in Prefect's UI."""
    link("run-directory", path, "Directory of this run")


def image(key: str, path: Path, description: str) -> None:
    """An SVG file of the run in Prefect's UI, which cannot read files: in a note that holds it.

    An image artifact would also print the address, here the whole figure, across the page.
    """
    address = "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    markdown(key, description, f"![{description}]({address})")


def replace_tree(source: Path, target: Path) -> None:
    """Copy the folder `source` to `target`, which readers see as it was or as it will be."""
    for leftover in target.parent.glob(f".{target.name}.*"):  # of a killed run; the run's directory is locked
        shutil.rmtree(leftover)
    staging = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    shutil.copytree(source, staging)
    if target.exists():
        old = target.with_name(f".{target.name}.{uuid.uuid4().hex}.old")
        target.rename(old)
        shutil.rmtree(old)
    staging.rename(target)
