"""The `spectramind` command. Each command resolves its settings and calls one function of `flows`.

Everything heavy is imported inside the command that needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import environment
from flows.command import Invocation, command, print_version
from spectramind.errors import SettingsError

if TYPE_CHECKING:
    from flows.run_directory import RunDirectory
    from settings.tree import Settings

app = typer.Typer(
    name="spectramind",
    epilog="Exit codes: 0 done, 1 failure, 2 input or settings that cannot be used, 75 time budget reached.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

diagnose = typer.Typer(name="diagnose", help="Reports on finished runs.", no_args_is_help=True)
app.add_typer(diagnose)

Flow = Callable[["Settings", "RunDirectory"], Any]

PLACES = ("data.root", "outputs")


@app.callback()
def spectramind(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Raw Ariel detector frames in, exoplanet transmission spectra with honest uncertainties out."""


@command(app, "run", keys=("data", "model", "train", "dask.workers", "tracking.enable", *PLACES[1:]))
def run(invocation: Invocation) -> None:
    """Everything in order: calibrate, train, predict, submit; with data.truth also score."""
    _pipeline(invocation, _end_to_end)


@command(app, "simulate", keys=("simulation", "runtime.seed"))
def simulate(
    invocation: Invocation, out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new data set.")]
) -> None:
    """Simulate a data set in the challenge's layout; the test split's truth goes to OUT_truth."""
    settings = invocation.settings()
    if _only_shown(invocation, settings):
        return
    if settings.runtime.dry_run:
        options = settings.simulation
        print(f"would simulate {options.train_planets} train and {options.test_planets} test planets into {out}")
        return
    from flows.simulate import simulate as simulate_into

    made = simulate_into(settings, out)
    print(
        f"data set  {made.root}  ({len(made.train_ids)} train, {len(made.test_ids)} test planets, {made.visits} visits)"
    )
    print(f"truth     {made.truth}")


@command(app, "calibrate", keys=("calibration", "cubes", "dask", *PLACES))
def calibrate(invocation: Invocation) -> None:
    """Raw frames to calibrated cubes and transit fits, with the data-quality report."""
    _pipeline(invocation, _calibrate)


@command(app, "train", keys=("model", "train", "optimizer", "loss", "symbolic", "transit", "uncertainty", *PLACES))
def train(invocation: Invocation) -> None:
    """Learn from the train split; print the out-of-fold score."""
    _pipeline(invocation, _train)


@command(app, "predict", keys=("model", "transit", "intervals", *PLACES))
def predict(invocation: Invocation) -> None:
    """Spectra and sigmas of the test split."""
    _pipeline(invocation, _predict)


@command(app, "submit", keys=PLACES)
def submit(
    invocation: Invocation,
    selftest: Annotated[bool, typer.Option("--selftest", help="Then compare it with template and manifest.")] = False,
) -> None:
    """Write, check and pack the submission."""
    _pipeline(invocation, _submit_and_test if selftest else _submit)


@command(app, "calibrate-temp", keys=("uncertainty", "outputs"))
def calibrate_temp(
    invocation: Invocation,
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", help="Out-of-fold table, or a run.")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="True spectra, in train.csv's format.")],
) -> None:
    """Fit the scaling of sigma on out-of-fold predictions, without training; of a run, also scale its predictions."""

    def fit(settings: Settings, run: RunDirectory) -> None:
        from flows.scaling import calibrate_temperature

        calibrate_temperature(predictions, truth, settings, run)

    _pipeline(invocation, fit, needs_data=False)


@command(app, "corel-train", keys=("corel", "outputs"))
def corel_train(
    invocation: Invocation,
    finished: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished run.")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="train.csv of its data set.")],
) -> None:
    """Conformal intervals from a graph network of the bins, trained on a run's out-of-fold predictions."""

    def fit(settings: Settings, run: RunDirectory) -> None:
        from flows.corel import train_corel

        train_corel(finished, truth, settings, run)

    _pipeline(invocation, fit, needs_data=False)


@command(app, "explain", keys=("outputs",))
def explain(
    invocation: Invocation,
    finished: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished run.")],
    planet: Annotated[
        list[str] | None, typer.Option("--planet", metavar="ID", help="A test planet; may be repeated. All by default.")
    ] = None,
    edges: Annotated[
        bool, typer.Option("--edges", help="Also the importance of the graph's edges; half a minute per planet.")
    ] = False,
    edge_epochs: Annotated[int, typer.Option(min=1, help="Steps of GNNExplainer, with --edges.")] = 50,
) -> None:
    """What the predictions of a run were made of: noise, neighbours, prior, network; into RUN/explain/."""

    def write(_settings: Settings, run: RunDirectory) -> None:
        from flows.explain import explain_run

        explain_run(finished, planet or (), run, edge_epochs if edges else 0)

    _pipeline(invocation, write, needs_data=False)


@command(app, "score")
def score(
    invocation: Invocation,
    submission: Annotated[Path, typer.Argument(metavar="SUBMISSION", help="submission.csv or predictions.parquet.")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="True spectra of its planets.")],
    train: Annotated[Path, typer.Argument(metavar="TRAIN", help="train.csv: the reference of the score.")],
) -> None:
    """The official score of a submission, with its parts."""
    settings = invocation.settings()
    if _only_shown(invocation, settings):
        return
    if settings.runtime.dry_run:
        print(f"would score {submission} against {truth}, reference {train}")
        return
    from flows.score import score as print_score

    print_score(submission, truth, train)


@command(app, "ablate", keys=("ablation", *PLACES))
def ablate(invocation: Invocation) -> None:
    """Train once per combination of -m KEY=V1,V2 … and rank the results; the same command goes on after a kill."""
    arguments, settings = invocation.sweep()
    if _only_shown(invocation, settings):
        return
    _require_data(settings)
    from flows.sweep import Sweep

    sweep = Sweep.planned(settings)
    if not settings.runtime.dry_run:
        _one_run(invocation, arguments, settings, _ablate)
        return
    _print_plan("ablate", settings, needs_data=True)
    for planned in sweep.runs(Path()):
        print(f"run {planned.name:<9} {' '.join(planned.arguments) or 'the settings as they are'}")
    print(f"sweep      {sweep}{', each chosen by the results before' * (settings.ablation.strategy == 'smart')}")


@command(app, "replay")
def replay(
    invocation: Invocation,
    original: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished run.")],
    out: Annotated[Path | None, typer.Option(help="Directory of the replay.", metavar="DIR")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute everything, in a store of its own.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop if data, code or libraries have changed.")] = False,
) -> None:
    """Repeat a finished run from its own settings; a table of what comes out the same, exit code 1 if it does not."""
    given = set(invocation.arguments) - {"runtime.dry_run=true", "runtime.debug=true"}
    if given or invocation.config or invocation.config_name:
        raise SettingsError("`spectramind replay` takes all settings from the run; leave out the others")
    from flows.replay import Original

    known = Original.read(original)
    if invocation.dry_run:
        print(f"would repeat `{known.command}` of {original}")
        return
    settings = known.settings(fresh, out)
    if _only_shown(invocation, settings):
        return
    flow = {"run": _end_to_end, "calibrate": _calibrate, "train": _train, "predict": _predict, "submit": _submit}

    def again(settings: Settings, run: RunDirectory) -> None:
        from flows.replay import replay as repeat

        repeat(known, settings, run, flow[known.command], strict)

    _one_run(invocation, ["replay", str(original)], settings, again, known.command)


@command(app, "analyze-log")
def analyze_log(
    invocation: Invocation,
    runs: Annotated[Path, typer.Argument(metavar="[RUNS]", help="Folder that holds runs, at any depth.")] = Path(
        "outputs"
    ),
    markdown: Annotated[Path | None, typer.Option("--md", help="Also write Markdown.", metavar="FILE")] = None,
    table: Annotated[Path | None, typer.Option("--csv", help="Also write CSV.", metavar="FILE")] = None,
) -> None:
    """The runs so far: when, what, how they ended, settings, commit, score, time, warnings; damaged ones too."""
    settings = invocation.settings()
    if _only_shown(invocation, settings):
        return
    if settings.runtime.dry_run:
        print(f"would list the runs in {runs}")
        return
    from flows.history import analyze_log as analyze

    analyze(runs, markdown, table)


@command(app, "freeze")
def freeze(
    invocation: Invocation,
    tag: Annotated[str, typer.Argument(metavar="TAG", help="Name of the state.")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished run.")],
    out: Annotated[Path, typer.Option(help="Folder of all frozen states.", metavar="DIR")] = Path("outputs/frozen"),
    git_tag: Annotated[bool, typer.Option("--git-tag", help="Also make an annotated tag of this name.")] = False,
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="Freeze although files differ from the commit, and say which.")
    ] = False,
) -> None:
    """One verified folder with a run's evidence: settings, lock, packages, digests, submission; if asked, a tag."""
    settings = invocation.settings()
    if _only_shown(invocation, settings):
        return
    if settings.runtime.dry_run:
        print(f"would freeze {run} as {out / tag}")
        return
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]{0,99}", tag) or ".." in tag or tag.endswith((".", ".lock")):
        raise SettingsError(f"TAG={tag!r}: expected letters, digits, `.`, `_` and `-`, as in v0.50.0-best")
    from flows.freeze import freeze as write

    write(tag, run, out, git_tag=git_tag, allow_dirty=allow_dirty)


@command(app, "gc", keys=("outputs.store", "tracking.uri"))
def collect_garbage(
    invocation: Invocation,
    older_than: Annotated[float, typer.Option(help="Age from which things may go.", metavar="DAYS", min=0)] = 30.0,
    max_size: Annotated[
        float | None, typer.Option(help="Then the oldest go, until the rest is this small.", metavar="GIB", min=0)
    ] = None,
    units_only: Annotated[bool, typer.Option("--units-only", help="Leave the directories of runs alone.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it only what would go is shown.")] = False,
) -> None:
    """Remove old units and runs that nothing needs: no model with an alias, no run that is kept, no process."""
    settings = invocation.settings()
    if _only_shown(invocation, settings):
        return
    from flows.collect import GIB, Limits, collect

    limits = Limits(older_than, None if max_size is None else int(max_size * GIB), units_only)
    collect(settings, limits, act=yes and not settings.runtime.dry_run)


@command(diagnose, "dashboard")
def dashboard(
    invocation: Invocation,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")],
    outdir: Annotated[Path | None, typer.Option(metavar="DIR", help="Instead of RUN/diagnostics.")] = None,
    figures: Annotated[bool, typer.Option(help="Also write every figure as PNG and JSON.")] = True,
    show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """One HTML file on a run's planets, errors, calibration and networks, with its figures beside it."""
    settings = invocation.settings()
    if _only_shown(invocation, settings):
        return
    if settings.runtime.dry_run:
        print(f"would report on {run} in {outdir or run / 'diagnostics'}")
        return
    from flows.dashboard import write_dashboard

    report = write_dashboard(run, outdir, figures)
    print(f"report    {report}")
    if show:
        typer.launch(report.resolve().as_uri())


@command(app, "test", keys=PLACES)
def check_installation(
    invocation: Invocation,
    deep: Annotated[bool, typer.Option("--deep", help="Also run the whole pipeline on a simulated data set.")] = False,
) -> None:
    """Check installation, settings, data set and write permission; a table of PASS and FAIL."""
    settings = invocation.settings()
    if _only_shown(invocation, settings):
        return
    if settings.runtime.dry_run:
        print(f"would check the installation{' and run the whole pipeline on a simulated data set' if deep else ''}")
        return
    from flows.selftest import selftest

    selftest(settings, deep)


@command(app, "preflight", keys=("runtime.budget_hours", "dask", *PLACES))
def preflight(
    invocation: Invocation,
    planets: Annotated[int, typer.Option(help="Test planets to forecast for.", metavar="N", min=1)] = 1100,
    train_planets: Annotated[
        int | None, typer.Option(help="Train planets; by default those of the data set.", metavar="N", min=0)
    ] = None,
    limit_hours: Annotated[float, typer.Option(help="When the notebook is ended.", metavar="H", min=0)] = 9.0,
) -> None:
    """Will a run fit into a Kaggle notebook? Times a few planets on this machine; exit code 2 if it will not."""
    settings = invocation.settings()
    if _only_shown(invocation, settings):
        return
    _require_data(settings)
    if settings.runtime.dry_run:
        print(f"would time a few planets of {settings.data.root} and forecast {planets}")
        return
    from flows.orchestration import configure

    configure(settings.outputs.local)
    from flows.preflight import Plan
    from flows.preflight import preflight as check

    check(settings, Plan(planets, train_planets, limit_hours))


@command(app, "ui", keys=("outputs.store",))
def ui(invocation: Invocation) -> None:
    """Open the Prefect and MLflow user interfaces on this machine, with a worker of the pool cpu."""
    settings = invocation.settings()
    if _only_shown(invocation, settings):
        return
    if settings.runtime.dry_run:
        print(f"would serve the runs in {settings.outputs.local}")
        return
    from flows.ui import serve

    serve(settings)


@command(app, "deploy")
def deploy(
    invocation: Invocation,
    notify: Annotated[
        str | None,
        typer.Option(metavar="TYPE/NAME", help="Notification block to which failed runs are told, slack-webhook/team."),
    ] = None,
) -> None:
    """Register deployments, work pools and automations with the Prefect server of PREFECT_API_URL."""
    settings = invocation.settings()
    if _only_shown(invocation, settings):
        return
    from flows.deploy import deploy as register

    register(notify, dry_run=settings.runtime.dry_run)


@app.command("settings")
def settings_table(
    groups: Annotated[
        list[str] | None, typer.Argument(metavar="[GROUP]...", help="Groups or keys; all by default.")
    ] = None,
) -> None:
    """List settings with default, allowed values and meaning, and the presets of each group."""
    from flows.settings_table import print_group
    from settings.groups import GROUPS

    try:
        for name in groups or GROUPS:
            print_group(name)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from error


def _pipeline(invocation: Invocation, flow: Flow, needs_data: bool = True) -> None:
    """Run `flow` once per job, each in its own run directory."""
    for arguments, settings in invocation.jobs():
        if _only_shown(invocation, settings):
            continue
        if needs_data:
            _require_data(settings)
        if settings.runtime.dry_run:
            _print_plan(invocation.name, settings, needs_data)
            continue
        _one_run(invocation, arguments, settings, flow)


def _one_run(
    invocation: Invocation, arguments: list[str], settings: Settings, flow: Flow, name: str | None = None
) -> None:
    from flows.accelerator import on_this_machine
    from flows.orchestration import configure
    from flows.run_directory import RunDirectory

    settings = on_this_machine(settings, lambda message: print(f"warning: {message}", file=sys.stderr))
    with RunDirectory.create(settings, name or invocation.name, arguments) as opened:
        invocation.runs.append(opened.path)
        # Prefect reads its home directory when it is first imported, by the flow.
        configure(settings.outputs.local)
        flow(settings, opened)
    print(f"run       {opened.path}")


def _require_data(settings: Settings) -> None:
    if settings.data.root is None:
        raise SettingsError("data.root is not set: give the folder of a data set, data.root=FOLDER")


def _end_to_end(settings: Settings, run: RunDirectory) -> None:
    from flows.end_to_end import spectramind_v50

    spectramind_v50(settings, run)


def _calibrate(settings: Settings, run: RunDirectory) -> None:
    from flows.calibrate import calibrate

    calibrate(settings, run)


def _train(settings: Settings, run: RunDirectory) -> None:
    from flows.train import train_v50

    train_v50(settings, run)


def _predict(settings: Settings, run: RunDirectory) -> None:
    from flows.predict import predict_v50

    predict_v50(settings, run)


def _ablate(settings: Settings, run: RunDirectory) -> None:
    from flows.ablate import ablate

    ablate(settings, run)


def _submit(settings: Settings, run: RunDirectory) -> None:
    from flows.submit import submit

    submit(settings, run)


def _submit_and_test(settings: Settings, run: RunDirectory) -> None:
    from flows.selftest import submission_report

    _submit(settings, run)
    root = settings.data.root
    submission_report(run.path / "submission", None if root is None else root / "sample_submission.csv")


def _only_shown(invocation: Invocation, settings: Settings) -> bool:
    """Whether `--cfg` asked for the settings instead of a run."""
    if invocation.cfg is None:
        return False
    from settings.tree import settings_hash

    print(settings.to_yaml().rstrip() if invocation.cfg.value == "job" else settings_hash(settings))
    return True


def _print_plan(name: str, settings: Settings, needs_data: bool) -> None:
    from settings.tree import settings_hash

    print(f"would run  {name}")
    if needs_data and settings.data.root is not None:
        from spectramind.data.layout import open_dataset

        dataset = open_dataset(settings.data.root)
        counts = f"{len(dataset.planets('train'))} train and {len(dataset.planets('test'))} test planets"
        print(f"data set   {dataset.root}  (edition {dataset.edition}, {counts})")
    print(f"settings   {settings_hash(settings)}")
    print(f"results    {settings.outputs.dir or 'outputs/<date>/<time>-<id>'}")
    print(f"store      {settings.outputs.store}")


def main() -> None:
    """Entry point of the `spectramind` command."""
    environment.prepare()
    app(prog_name="spectramind")
