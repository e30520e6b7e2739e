"""The command line as its users meet it: real processes, exit codes, one-line messages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app

COMMANDS = [
    *("run", "simulate", "calibrate", "train", "predict", "submit"),
    *("calibrate-temp", "corel-train", "explain", "score", "ablate", "test", "ui"),
    *("replay", "gc", "analyze-log", "preflight", "freeze"),
]


def spectramind(
    *arguments: str | Path, folder: Path, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", **(environ or {})}
    command = [sys.executable, "-m", "spectramind", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def within(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str | Path) -> Result:
    """The same without a process of its own, which takes a tenth of the time."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    sizes = ("train_planets=3", "test_planets=2", "thin=200", "fgs1_thin=2000")
    overrides = ("dask=synchronous", "outputs.store=store", *(f"simulation.{size}" for size in sizes))
    done = spectramind("simulate", folder / "toy", *overrides, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "toy"


def test_help_names_all_commands_and_answers_without_heavy_libraries(tmp_path: Path) -> None:
    done = spectramind("--help", folder=tmp_path)
    assert done.returncode == 0
    assert all(re.search(rf"^│ {name} ", done.stdout, re.MULTILINE) for name in [*COMMANDS, "diagnose", "settings"])
    for arguments in (["--help"], ["run", "--help"], ["simulate", "--help"]):
        program = (
            "import sys\nfrom flows.cli import main\n"
            f"sys.argv = ['spectramind', *{arguments!r}]\n"
            "try: main()\nexcept SystemExit: pass\n"
            "heavy = {'numpy', 'prefect', 'mlflow', 'great_expectations', 'dask', 'polars', 'torch'}\n"
            "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
        )
        assert subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True).returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_common_options(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = within(monkeypatch, tmp_path, name, "--help")
    assert done.exit_code == 0
    for option in ("config", "config-name", "config-path", "seed", "multirun", "dry-run", "debug", "cfg", "version"):
        assert f" --{option} " in done.stdout


def test_help_shows_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "data.root=null" in within(monkeypatch, tmp_path, "run", "--help").stdout
    listing = within(monkeypatch, tmp_path, "settings", "dask").stdout
    assert "dask.workers=0" in listing
    assert "presets: local, synchronous" in listing
    assert within(monkeypatch, tmp_path, "settings", "nothing").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "No such command 'fly'"),
        (["run", "--fly"], "No such option"),
        (["run"], "data.root is not set"),
        (["run", "data.root=x", "runtime.sede=1"], "did you mean 'runtime.seed'"),
        (["run", "data.root=x", "runtime.seed=abc"], "expected an integer"),
        (["run", "data.root=x", "--seed", "-1"], "expected an integer ≥ 0"),
        (["run", "data=nowhere"], "no such preset"),
        (["run", "--config", "absent.yaml"], "cannot be read"),
        (["run", "--config-name", "dmo"], "did you mean 'demo'"),
        (["score", "a.csv", "b.csv", "c.csv"], "b.csv: expected"),
        (["score", "a.csv"], "Missing argument"),
        (["simulate", "out", "-m", "runtime.seed=1,2"], "does not sweep"),
    ],
)
def test_wrong_input_gives_exit_code_2_and_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = within(monkeypatch, tmp_path, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    if done.stderr.startswith("error: "):
        assert done.stderr.count("\n") == 1


def test_the_process_ends_with_the_same_code(tmp_path: Path) -> None:
    done = spectramind("run", "data.root=x", "runtime.seed=abc", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: runtime.seed='abc' (command line): expected an integer")
    assert done.stderr.count("\n") == 1
    assert spectramind("fly", folder=tmp_path).returncode == 2


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = spectramind("run", "data.root=x", "runtime.sede=1", "--debug", folder=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_version(tmp_path: Path) -> None:
    for arguments in (["--version"], ["run", "--version"]):
        done = spectramind(*arguments, folder=tmp_path)
        assert (done.returncode, done.stdout) == (0, "spectramind 0.50.0\n")


def test_resolved_settings_can_be_shown_and_used_again(tmp_path: Path) -> None:
    first = spectramind("run", "--cfg", "job", "--seed", "5", "simulation=tiny", folder=tmp_path)
    assert first.returncode == 0
    assert "seed: 5" in first.stdout
    (tmp_path / "again.yaml").write_text(first.stdout)
    second = spectramind("train", "--cfg", "job", "--config", "again.yaml", folder=tmp_path)
    assert second.stdout == first.stdout
    shown = spectramind("run", "--cfg", "hash", "--config", "again.yaml", folder=tmp_path).stdout.strip()
    assert shown in first.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["again.yaml"]


def test_environment_reaches_the_settings(tmp_path: Path) -> None:
    environ = {"SPECTRAMIND__RUNTIME__SEED": "11", "MLFLOW_ON": "0"}
    shown = spectramind("run", "--cfg", "job", folder=tmp_path, environ=environ).stdout
    assert "seed: 11" in shown
    assert "enable: false" in shown
    wrong = spectramind("run", "--cfg", "job", folder=tmp_path, environ={"SPECTRAMIND__RUNTIME__SEDE": "11"})
    assert wrong.returncode == 2
    assert "did you mean 'runtime.seed'" in wrong.stderr


def test_a_sweep_resolves_every_combination(tmp_path: Path) -> None:
    done = spectramind("run", "-m", "runtime.seed=1,2", "model.folds=3,4", "--cfg", "hash", folder=tmp_path)
    assert done.returncode == 0
    assert len(set(done.stdout.split())) == 4


def test_former_names_warn_once(tmp_path: Path) -> None:
    done = spectramind("run", "seed=3", "--cfg", "job", folder=tmp_path)
    assert done.stderr == "warning: seed is now called runtime.seed (command line)\n"
    assert "seed: 3" in done.stdout


@pytest.mark.parametrize("name", ["run", "calibrate", "train", "predict", "submit"])
def test_dry_run_checks_the_data_and_writes_nothing(
    name: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = within(monkeypatch, tmp_path, name, f"data.root={toy}", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert f"would run  {name}" in done.stdout
    assert "3 train and 2 test planets" in done.stdout
    assert within(monkeypatch, tmp_path, name, f"data.root={toy.parent}", "--dry-run").exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["simulate", "out"], ["score", "a", "b", "c"], ["test", "--deep"], ["ui"], ["analyze-log"]]
)
def test_dry_runs_of_the_other_commands(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = within(monkeypatch, tmp_path, *arguments, "--dry-run")
    assert done.exit_code == 0
    assert done.stdout.startswith("would ")
    assert list(tmp_path.iterdir()) == []


def test_every_invocation_is_logged(tmp_path: Path) -> None:
    store = tmp_path / "elsewhere"
    spectramind("run", f"outputs.store={store}", "runtime.sede=1", folder=tmp_path)
    spectramind("score", "a", "b", "c", f"outputs.store={store}", folder=tmp_path)
    log = (store / "logs" / "v50_debug_log.md").read_text()
    assert re.findall(r"## \S+ (\w+): (\w+)", log) == [("run", "failed"), ("score", "failed")]
    assert "did you mean" in log


def test_an_output_directory_that_cannot_be_written_stops_before_any_work(toy: Path, tmp_path: Path) -> None:
    done = spectramind("run", f"data.root={toy}", "outputs.dir=/proc/run", f"outputs.store={tmp_path}", folder=tmp_path)
    assert done.returncode == 1
    assert "/proc/run" in done.stderr
    assert "cannot be written" in done.stderr


def test_the_self_test_passes_on_a_sound_data_set_and_fails_on_another(toy: Path, tmp_path: Path) -> None:
    done = spectramind("test", f"data.root={toy}", "outputs.store=store", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASS") == 8
    wrong = spectramind("test", f"data.root={tmp_path}", "outputs.store=store", folder=tmp_path)
    assert wrong.returncode == 1
    assert "FAIL" in wrong.stdout


def test_the_truth_itself_scores_nearly_one(toy: Path, tmp_path: Path) -> None:
    truth = toy.parent / "toy_truth" / "test.csv"
    lines = truth.read_text().splitlines()
    sigmas = ["1e-6", *["1e-5"] * 282]
    header = f"{lines[0]},{','.join(f'sigma_{number}' for number in range(1, 284))}"
    rows = [f"{line},{','.join(sigmas)}" for line in lines[1:]]
    (tmp_path / "submission.csv").write_text("\n".join([header, *rows]) + "\n")
    done = spectramind("score", "submission.csv", truth, toy / "train.csv", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "official score 2025: 1.0000" in done.stdout
    fitted = spectramind(
        "calibrate-temp", "submission.csv", truth, "outputs.dir=fit", "outputs.store=store", folder=tmp_path
    )
    assert fitted.returncode == 0, fitted.stderr
    metrics = json.loads((tmp_path / "fit" / "metrics.json").read_text())
    assert metrics["after"]["nll"] <= metrics["before"]["nll"]
    assert (tmp_path / "fit" / "checkpoints" / "sigma_scaling.json").exists()


def test_a_termination_signal_ends_a_command_with_its_own_code(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "spectramind", "simulate", "out", "simulation=nominal", "dask.workers=2"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while process.poll() is None and not any(tmp_path.iterdir()):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    finally:
        process.kill()
    assert not (tmp_path / "out").exists()


def test_libraries_are_told_to_keep_quiet() -> None:
    program = (
        "import os\nfrom flows.environment import prepare\nprepare()\n"
        "names = ('MLFLOW_DISABLE_TELEMETRY', 'PREFECT_SERVER_ANALYTICS_ENABLED', 'DO_NOT_TRACK',"
        " 'GX_ANALYTICS_ENABLED', 'MLFLOW_ALLOW_PICKLE_DESERIALIZATION', 'OMP_NUM_THREADS')\n"
        "print(*(os.environ[name] for name in names))"
    )
    environment = {name: value for name, value in os.environ.items() if "THREADS" not in name}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["true", "false", "1", "false", "false", "1"]
