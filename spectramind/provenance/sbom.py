"""The installed packages as a software bill of materials in CycloneDX 1.6 (ECMA-424), JSON.

The same packages give the same bytes: no time, and a serial number that follows from the content.
"""

from __future__ import annotations

import json
import re
import uuid
from functools import cache
from importlib import metadata
from typing import Any

SBOM = "sbom.cdx.json"

NAMESPACE = uuid.UUID("6f1c4f0e-6f0b-5a0e-9d7c-2f8c0f6b1a50")
"""Of the serial numbers."""


@cache
def sbom() -> bytes:
    """Name, version, package URL, licence as declared and requirements of every installed distribution."""
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        if name := _declared(distribution, "Name"):
            found.setdefault(_normal(name), distribution)  # the first on the path is the one that is imported
    root = found.pop("spectramind", None)
    version = "unknown" if root is None else root.version
    bill: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _component("application", "spectramind", version)},
        "components": [_library(name, item) for name, item in sorted(found.items())],
        "dependencies": [
            {"ref": _purl(name, item.version), "dependsOn": _required(item, found)}
            for name, item in sorted(found.items())
        ],
    }
    serial = uuid.uuid5(NAMESPACE, json.dumps(bill, sort_keys=True))
    return (json.dumps({**bill, "serialNumber": f"urn:uuid:{serial}"}, indent=1, sort_keys=True) + "\n").encode()


def _library(name: str, distribution: metadata.Distribution) -> dict[str, Any]:
    component = _component("library", name, distribution.version)
    licence = _declared(distribution, "License-Expression")
    return {**component, "licenses": [{"expression": licence}]} if licence else component


def _declared(distribution: metadata.Distribution, field: str) -> str | None:
    """A field of the metadata. Indexed, one that is absent is None or a KeyError, as the finder has it."""
    values = distribution.metadata.get_all(field)
    return str(values[0]) if values else None


def _component(kind: str, name: str, version: str) -> dict[str, Any]:
    purl = _purl(name, version)
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _required(distribution: metadata.Distribution, found: dict[str, metadata.Distribution]) -> list[str]:
    """The installed ones among what a distribution may require, extras included."""
    names = {_normal(match[0]) for text in distribution.requires or () if (match := re.match(r"[\w.-]+", text))}
    return sorted(_purl(name, found[name].version) for name in names & found.keys())


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version.replace('+', '%2B')}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
