"""`spectramind test`: is this installation, and the data set it is pointed at, ready for a run?"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.store_layout import StoreLayout
from settings.tree import Settings
from spectramind.errors import InputError, SpectraMindError
from spectramind.instruments import INSTRUMENTS, N_WAVELENGTHS
from spectramind.types import Spectra

FREE_BYTES = 2**30
"""Free space below which a run of any size is likely to end early."""


@dataclass(frozen=True)
class Check:
    """One line of the table; `run` returns what it found or raises."""

    name: str
    run: Callable[[], str]


def selftest(settings: Settings, deep: bool) -> None:
    """Print a table of PASS and FAIL. Raises SpectraMindError if a check failed."""
    checks = [
        Check("libraries", libraries),
        Check("settings and presets", every_preset),
        Check("expectation suites", suites),
        Check("wavelength grid", lambda: wavelength_grid(settings)),
        Check("data set", lambda: data_set(settings)),
        Check("submission template", lambda: submission_template(settings)),
        Check("submission format", submission_format),
        Check("store is writable", lambda: writable(settings)),
    ]
    if deep:
        checks.append(Check("whole pipeline on a simulated set", lambda: whole_pipeline(settings)))
    if failed := print_checks(checks, settings.runtime.debug):
        raise SpectraMindError(f"{failed} of {len(checks)} checks failed")


def print_checks(checks: Sequence[Check], debug: bool) -> int:
    """Print a table of PASS and FAIL; how many checks failed."""
    table = Table(box=box.SIMPLE, show_edge=False)
    for heading in ("", "check", "found"):
        table.add_column(heading, overflow="fold")
    failed = 0
    for check in checks:
        try:
            found, verdict = check.run(), "[green]PASS[/]"
        except Exception as error:
            if debug:
                raise
            found, verdict = f"{type(error).__name__}: {error}", "[bold red]FAIL[/]"
            failed += 1
        table.add_row(verdict, check.name, escape(found))
    Console().print(table)
    return failed


def libraries() -> str:
    """All required distributions are installed in a version that fits."""
    from packaging.requirements import Requirement

    required = [Requirement(text) for text in metadata.requires("spectramind") or ()]
    required = [item for item in required if item.marker is None or item.marker.evaluate({"extra": ""})]
    unfit = []
    for item in required:
        try:
            version = metadata.version(item.name)
        except metadata.PackageNotFoundError:
            version = "absent"
        if version == "absent" or not item.specifier.contains(version, prereleases=True):
            unfit.append(f"{item.name} {version}, needed {item.specifier or 'any version'}")
    if unfit:
        raise SpectraMindError("; ".join(unfit))
    return f"{len(required)} required distributions"


def every_preset() -> str:
    """Every preset and every named configuration resolves."""
    from settings.groups import GROUPS, presets
    from settings.resolve import PROFILES, resolve
    from settings.tree import settings_hash

    names = [f"{group}={name}" for group in GROUPS for name in presets(group)]
    for name in names:
        resolve([name])
    profiles = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    for profile in profiles:
        resolve(config_name=profile)
    return f"{len(names)} presets, {len(profiles)} configurations, default hash {settings_hash(resolve())[:12]}"


def suites() -> str:
    """The suites of data contracts are there and can be read."""
    from flows.quality import load_suite, suite_names

    names = suite_names()
    if not names:
        raise SpectraMindError("no suite in expectations/")
    expectations = sum(len(load_suite(name)["expectations"]) for name in names)
    return f"{expectations} expectations in {len(names)} suites"


def wavelength_grid(settings: Settings) -> str:
    """The instruments fill the spectrum without gap or overlap; the data set's wavelengths ascend."""
    bins = [index for instrument in INSTRUMENTS for index in range(N_WAVELENGTHS)[instrument.spectral_slice]]
    if sorted(bins) != list(range(N_WAVELENGTHS)) or any(
        len(range(300)[i.spectral_slice]) != i.n_bins for i in INSTRUMENTS
    ):
        raise SpectraMindError(f"the instruments do not cover {N_WAVELENGTHS} bins once each")
    if settings.data.root is None:
        return f"{N_WAVELENGTHS} bins"
    from spectramind.data.layout import open_dataset

    grid = open_dataset(settings.data.root).wavelengths_um
    return f"{grid.size} bins, AIRS {grid[1:].min():.3f} to {grid[1:].max():.3f} µm"


def data_set(settings: Settings) -> str:
    """The data set's metadata are sound and the first visit's files are there."""
    if settings.data.root is None:
        return "data.root is not set, nothing to check"
    from spectramind.data.layout import SPLITS, open_dataset

    dataset = open_dataset(settings.data.root)
    counts = {split: len(dataset.planets(split)) for split in SPLITS}
    for split in SPLITS:
        for planet_id in dataset.planets(split)[:1]:
            for visit in dataset.visits(split, planet_id):
                missing = [path for path in dataset.visit_files(split, planet_id, visit).values() if not path.is_file()]
                if missing:
                    raise InputError(missing[0], "a file", "none", "Complete the data set.")
    return f"edition {dataset.edition}, {counts['train']} train and {counts['test']} test planets"


def submission_template(settings: Settings) -> str:
    """`sample_submission.csv`, where there is one, names the planets of the test split."""
    path = None if settings.data.root is None else settings.data.root / "sample_submission.csv"
    if path is None or not path.exists():
        return "no sample_submission.csv to compare with"
    from spectramind.data.layout import open_dataset
    from spectramind.submission.table import read_template

    planet_ids = read_template(path)
    known = set(open_dataset(path.parent).planets("test"))
    if set(planet_ids) != known:
        raise InputError(path, f"the {len(known)} test planets", f"{len(planet_ids)} others", "Restore the file.")
    return f"{len(planet_ids)} planets"


def submission_format() -> str:
    """A table written here passes the checks that a submission must pass, and one with a negative depth does not."""
    from spectramind.submission.checks import check_submission

    def table(depth: float) -> Spectra:
        return Spectra(("a", "b"), np.full((2, N_WAVELENGTHS), depth), np.full((2, N_WAVELENGTHS), 1e-4))

    problems = [problem for problem in check_submission(table(0.01)) if problem.severity == "error"]
    if problems or not check_submission(table(-0.01)):
        raise SpectraMindError(str(problems[0]) if problems else "a negative depth passes the checks")
    return f"{1 + 2 * N_WAVELENGTHS} columns"


def writable(settings: Settings) -> str:
    """Files can be written where results go, and there is room."""
    if bucket := StoreLayout.of(settings.outputs).bucket:
        bucket.require_writable()
    store = settings.outputs.local
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=store) as probe:
        probe.write(b"\0")
    free = shutil.disk_usage(store).free
    if free < FREE_BYTES:
        raise SpectraMindError(f"{store}: only {free / 2**30:.2f} GiB free")
    return f"{free / 2**30:.0f} GiB free"


def whole_pipeline(settings: Settings) -> str:
    """Simulate a tiny data set and run everything on it, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="spectramind-") as name:
        return _run_in(Path(name), settings)


def _run_in(folder: Path, settings: Settings) -> str:
    from flows import orchestration
    from flows.run_directory import RunDirectory
    from flows.simulate import simulate
    from settings.resolve import resolve
    from spectramind.submission.checks import require_valid

    seed = f"runtime.seed={settings.runtime.seed}"
    tiny = resolve(
        [
            *("simulation=tiny", "tracking.enable=false", seed),
            *(f"data.root={folder}/data", f"data.truth={folder}/data_truth/test.csv"),
            *(f"outputs.dir={folder}/run", f"outputs.store={folder}/store"),
        ]
    )
    tiny = tiny.model_copy(update={"dask": settings.dask})
    simulate(tiny, folder / "data")
    with RunDirectory.create(tiny, "test") as run:
        orchestration.configure(tiny.outputs.local)
        from flows.end_to_end import spectramind_v50

        spectramind_v50(tiny, run)
    require_valid(folder / "run" / "submission" / "submission.csv")
    return "a valid submission"


def submission_report(directory: Path, template: Path | None) -> None:
    """Print what separates a written submission from its template and its manifest. Raises InputError if anything."""
    from spectramind.submission.bundle import verify_bundle
    from spectramind.submission.checks import check_long_table, diff_lines

    known = template if template is not None and template.is_file() else None
    lines = diff_lines(directory / "submission.csv", known)
    lines += [f"submission_long.csv: {problem}" for problem in check_long_table(directory / "submission_long.csv")]
    lines += verify_bundle(directory)
    console = Console()
    for line in lines:
        console.print(escape(line), soft_wrap=True)
    if lines:
        raise InputError(directory, "a valid submission", f"{len(lines)} differences", "See the lines above.")
    console.print(f"[green]PASS[/] {escape(str(directory))}: valid, complete and unchanged", soft_wrap=True)
