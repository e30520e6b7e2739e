"""Flow `submit`: the checked and packed submission."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import flow

from flows.certificate import certificate_files
from flows.contracts import judge, publish_data_quality
from flows.predict import predict_v50
from flows.published import markdown, run_directory
from flows.run_directory import RunDirectory
from flows.tables import spectra_frame, submission_table
from flows.train import train_v50
from flows.workspace import Workspace, workspace
from settings.tree import Settings, settings_hash
from spectramind import __version__
from spectramind.errors import InputError
from spectramind.provenance.environment import environment_snapshot
from spectramind.provenance.sbom import SBOM, sbom
from spectramind.submission.bundle import Origin, verify_bundle, write_bundle
from spectramind.submission.checks import require_valid
from spectramind.submission.table import read_template

SUBMISSION = "submission"
"""The folder of a run's submission. What an earlier run left there is removed first: it must not pass for the result of
a run that fails."""

TABLE = "submission.csv"


@dataclass(frozen=True)
class Submission:
    """The folder with submission.csv, submission_long.csv, submission.zip, coverage_certificate.json and .md,
    sbom.cdx.json, and manifest.json."""

    path: Path


@flow(name="submit")
def submit(settings: Settings, run: RunDirectory | None = None) -> Submission:
    """Write, check and pack the predictions into `submission/` of the run."""
    with workspace(settings, run, "submit") as work:
        run_directory(work.run.path)
        work.run.discard(SUBMISSION)
        return _submit(work)


def _submit(work: Workspace) -> Submission:
    prediction = work.prediction or predict_v50(work.settings, work.run)
    training = work.training or train_v50(work.settings, work.run)
    spectra = prediction.spectra
    expected = _expected_planets(work)
    judge(work, "submission", submission_table(spectra_frame(spectra), expected))
    publish_data_quality(work)
    folder = work.run.folder(SUBMISSION)
    environment = environment_snapshot()
    origin = Origin(
        version=__version__,
        git_commit=environment["git_commit"],
        config_hash=settings_hash(work.settings),
        dvc_rev=environment["dvc_rev"],
        docker_image=environment["docker_image"],
    )
    companions = {**certificate_files(work, training, prediction), SBOM: sbom()}
    write_bundle(folder, spectra, expected, origin, work.run.metrics(), companions=companions)
    for warning in require_valid(folder / TABLE, expected):
        work.warn(str(warning))
    if problems := verify_bundle(folder):
        raise InputError(folder, "the submission as written", "; ".join(problems), "Run again.")
    markdown(
        "submission",
        "The submission",
        f"{len(expected)} planets: `{folder / TABLE}`, packed `{folder / 'submission.zip'}`",
    )
    return Submission(folder)


def _expected_planets(work: Workspace) -> tuple[str, ...]:
    """The template's planets in its order where the data set has one and all planets are used, else the test split."""
    planets = work.planets["test"]
    template = work.dataset.root / "sample_submission.csv"
    if template.is_file():
        listed = read_template(template)
        if set(listed) == set(planets):
            return listed
        if planets == work.dataset.planets("test") and not set(planets) <= set(listed):
            work.warn(f"{template} lists other planets than the test split; the test split's are submitted")
    return planets
