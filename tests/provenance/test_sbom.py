"""The bill of materials names what is installed."""

from __future__ import annotations

import json
from importlib import metadata

import pytest

from spectramind.provenance.sbom import sbom


def test_every_installed_distribution_is_listed_once_with_its_requirements() -> None:
    bill = json.loads(sbom())
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    components = {component["name"]: component for component in bill["components"]}
    assert len(components) == len(bill["components"])
    assert components["numpy"]["version"] == metadata.version("numpy")
    assert components["numpy"]["purl"] == f"pkg:pypi/numpy@{metadata.version('numpy')}"
    assert components["pydantic-settings"]["type"] == "library"
    assert "spectramind" not in components
    references = [component["bom-ref"] for component in bill["components"]]
    dependencies = {row["ref"]: row["dependsOn"] for row in bill["dependencies"]}
    assert sorted(dependencies) == sorted(references)
    assert {needed for row in dependencies.values() for needed in row} <= set(references)
    assert components["numpy"]["bom-ref"] in dependencies[components["scipy"]["bom-ref"]]


def test_the_same_packages_give_the_same_bytes() -> None:
    before = sbom()
    pytest.importorskip("importlib_metadata")  # from then on it finds packages, too, and its metadata behave otherwise
    sbom.cache_clear()
    assert sbom() == before
