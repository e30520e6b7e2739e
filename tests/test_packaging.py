"""What the repository promises about itself: layout, locked versions, import contracts, nothing unsafe or heavy."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import spectramind

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("spectramind", "flows", "settings")
TREE = (
    *("settings", "expectations", "flows", "spectramind", "deployments", "infra", "tests"),
    *("Dockerfile", "Makefile", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"),
    *("pyproject.toml", "requirements.lock", ".ci/run", ".github/workflows/ci.yml"),
)
RAW_AND_DERIVED_DATA = (
    "data/train/1/AIRS-CH0_signal_0.parquet",
    "data/train.csv",
    "anywhere/test/1/FGS1_calibration_0/dark.parquet",
    "demo/data/adc_info.csv",
    "demo/data_truth/test.csv",
    "outputs/store/cubes/train/1_0/0123456789abcdef/cube.zarr/zarr.json",
    "elsewhere/cube.zarr/zarr.json",
    "elsewhere/fit.npz",
    "elsewhere/mlflow.db",
)
UNSAFE = re.compile(
    r"weights_only\s*=\s*False|allow_pickle\s*=\s*True|yaml\.(unsafe_)?load\(|(?<![\w.])(eval|exec)\("
    r"|shell\s*=\s*True|pickle\.loads?\(|os\.system\("
)
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        *(("pypi", "org"), ("pythonhosted", "org"), ("download", "pytorch", "org"), ("pypi", "nvidia", "com")),
        *(("anaconda", "org"), ("anaconda", "com"), ("docker", "io"), ("ghcr", "io"), ("quay", "io"), ("gcr", "io")),
    )
)
MEGABYTE = 2**20


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    return subprocess.run(("git", "-C", str(ROOT), *arguments), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    names = git("ls-files", "-z").stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("name", TREE)
def test_layout(name: str) -> None:
    assert (ROOT / name).exists()


def test_import_contracts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from importlinter.cli import lint_imports

    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == 0, capsys.readouterr().out


def test_help_needs_no_torch() -> None:
    """It takes seconds to import, and help is shown at once."""
    program = (
        "import sys; sys.modules.update(torch=None, lightning=None); from spectramind.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "calibrate" in done.stdout


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unsafe(path: Path) -> None:
    """Exceptions are marked for the linter, with their reason."""
    found = [line for line in path.read_text().splitlines() if UNSAFE.search(line)]
    assert not [line for line in found if not re.search(r"# noqa: S\d+ - \w", line)]


@pytest.mark.parametrize("name", RAW_AND_DERIVED_DATA)
def test_data_is_ignored_by_git(name: str) -> None:
    assert git("check-ignore", "--quiet", "--no-index", name).returncode == 0


def test_no_tracked_file_is_heavy(tracked: list[Path]) -> None:
    assert not [path for path in tracked if path.stat().st_size > MEGABYTE]


def test_no_registry_is_named(tracked: list[Path]) -> None:
    texts = {path: path.read_bytes().decode(errors="ignore") for path in tracked}
    assert not [(path, host) for path, text in texts.items() for host in REGISTRIES if host in text]


def test_version_has_one_source(project: dict[str, Any]) -> None:
    assert project["dynamic"] == ["version"]
    assert importlib.metadata.version("spectramind") == spectramind.__version__
    assert [path for path in sources() if re.search(r"^__version__\b", path.read_text(), re.MULTILINE)] == [
        ROOT / "spectramind/__init__.py"
    ]


def test_every_dependency_is_locked(project: dict[str, Any]) -> None:
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lock if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+-]+", pin) for pin in pins)
    extras = project["optional-dependencies"].values()
    requirements = [*project["dependencies"], *(requirement for extra in extras for requirement in extra)]
    names = {canonical(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}  # type: ignore[index]
    assert names <= {canonical(pin.split("==")[0]) for pin in pins}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in (ROOT / "README.md").read_text()
    assert "exec make test" in (ROOT / ".ci/run").read_text()
    assert ".ci/run" in (ROOT / ".github/workflows/ci.yml").read_text()


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_relative_links_lead_somewhere(document: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / document).read_text())
    assert not [target for target in targets if "://" not in target and not (ROOT / target).exists()]


def test_deployments_name_functions_that_exist() -> None:
    deployments = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text())["deployments"]
    for deployment in deployments:
        file, function = deployment["entrypoint"].split(":")
        defined = [node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)]
        assert function in defined
        assert deployment["work_pool"]["name"] in {"cpu", "gpu"}


def test_image_runs_as_an_ordinary_user() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users[-1] not in {"root", "0"}
