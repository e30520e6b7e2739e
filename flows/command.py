"""What all commands share: their options, how settings are resolved, how errors become exit codes.

0  done        2  input or settings that cannot be used: one line says what and how to cure it
1  failure     75 time budget reached, the best result so far was delivered
"""

from __future__ import annotations

import functools
import inspect
import json
import multiprocessing
import os
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from flows.temporary_server import failure as server_failure
from spectramind import __version__
from spectramind.errors import BudgetReached, SettingsError, SpectraMindError, StoreError

if TYPE_CHECKING:
    from settings.tree import Settings

Command = Callable[..., None]

INTERRUPTED, TERMINATED = 130, 143

FULL_DISK = 1 << 16
"""Free bytes below which a failure is put down to the disk."""


class Show(StrEnum):
    """What `--cfg` prints."""

    job = "job"
    hash = "hash"


def print_version(wanted: bool) -> None:
    if wanted:
        print(f"spectramind {__version__}")
        raise typer.Exit


@dataclass(frozen=True)
class Invocation:
    """The options that every command takes; `name` of the command."""

    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE|GROUP=PRESET", help="Settings, see `spectramind settings`."),
    ] = None
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML file with settings.")] = None
    config_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="A named set of settings: demo, ci, kaggle.")
    ] = None
    config_path: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder in which --config-name looks for NAME.yaml.")
    ] = None
    seed: Annotated[int | None, typer.Option(help="Short for runtime.seed=N.", metavar="N")] = None
    multirun: Annotated[
        bool, typer.Option("--multirun", "-m", help="One run per combination of comma-separated values.")
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, show what would run.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False
    cfg: Annotated[Show | None, typer.Option(help="Print the resolved settings, or their hash, and stop.")] = None
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=print_version, is_eager=True)
    ] = False
    name: str = ""
    runs: list[Path] = field(default_factory=list)
    """Directories of the runs that this invocation has opened; each run logs itself."""

    @property
    def arguments(self) -> list[str]:
        """The overrides, the options that stand for one included."""
        arguments = list(self.overrides or ())
        if self.seed is not None:
            arguments.append(f"runtime.seed={self.seed}")
        arguments += ["runtime.dry_run=true"] * self.dry_run + ["runtime.debug=true"] * self.debug
        return arguments

    def jobs(self) -> list[tuple[list[str], Settings]]:
        """Arguments and settings of each run: one, or with --multirun one per combination of values."""
        from settings.resolve import expand_sweep

        if not self.multirun:
            return [(self.arguments, self._resolved(self.arguments))]
        jobs = [(arguments, self._resolved(arguments)) for arguments in expand_sweep(self.arguments)]
        return [(arguments, _with_own_directory(settings, number)) for number, (arguments, settings) in enumerate(jobs)]

    def sweep(self) -> tuple[list[str], Settings]:
        """Arguments and settings of one sweep: with --multirun, keys of several values become ablation.sweep."""
        arguments = self.arguments
        if self.multirun:
            from settings.resolve import swept

            axes = [argument for argument in arguments if len(swept(argument)[1]) > 1]
            fixed = [argument for argument in arguments if argument not in axes]
            arguments = [*fixed, *([f"ablation.sweep={json.dumps(axes)}"] if axes else [])]
        return arguments, self._resolved(arguments)

    def settings(self) -> Settings:
        """The settings of a command that is no run."""
        if self.multirun:
            raise SettingsError(f"`spectramind {self.name}` does not sweep; leave out --multirun")
        return self._resolved(self.arguments)

    def store(self) -> Path:
        """Where to log this invocation, even if its other settings are wrong."""
        from settings.resolve import resolve

        relevant = [argument for argument in self.arguments if argument.startswith("outputs.")]
        try:
            return resolve(relevant, self.config).outputs.local
        except SettingsError:
            return resolve().outputs.local

    def _resolved(self, arguments: Sequence[str]) -> Settings:
        from settings.resolve import PROFILES, resolve

        return resolve(
            arguments,
            self.config,
            os.environ,
            config_name=self.config_name,
            config_folder=self.config_path or PROFILES,
        )


COMMON = {
    name: parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    for name, parameter in inspect.signature(Invocation, eval_str=True).parameters.items()
    if name not in ("name", "runs")
}
"""The options of every command."""


def command(
    app: typer.Typer, name: str, keys: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function of (invocation, own arguments …) as the command `name` with the common options.

    Its `--help` ends with the settings whose keys begin with one of `keys`.
    """

    def register(function: Command) -> Command:
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        ]

        @functools.wraps(function)
        def call(**values: Any) -> None:
            common = {key: values.pop(key) for key in COMMON}
            invocation = Invocation(**common, name=name)
            with exit_codes(invocation):
                function(invocation, **values)

        call.__signature__ = inspect.Signature([*own, *COMMON.values()])  # type: ignore[attr-defined]
        app.command(name, cls=_command_class(tuple(keys)))(call)
        return function

    return register


@contextmanager
def exit_codes(invocation: Invocation) -> Iterator[None]:
    """Turn what goes wrong inside the block into a message and an exit code, and log the invocation."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
            _log(invocation, "completed", None)
            return
    except typer.Exit:
        raise
    except KeyboardInterrupt as error:
        _log(invocation, "interrupted", error)
        _stop("interrupted", INTERRUPTED)
    except SystemExit as error:
        _log(invocation, "interrupted", error)
        raise
    except BudgetReached as error:
        _log(invocation, "budget reached", error)
        _stop(str(error), error.exit_code)
    except Exception as error:
        named = _named(error, invocation)
        _log(invocation, "failed", named)
        if invocation.debug:
            traceback.print_exc()
        if isinstance(named, SpectraMindError):
            _stop(f"error: {named}", named.exit_code)
        _stop(f"error: {type(named).__name__}: {named} (--debug shows where)", 1)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _stop(message: str, code: int) -> NoReturn:
    print(" ".join(message.split()), file=sys.stderr)
    raise typer.Exit(code)


def _named(error: Exception, invocation: Invocation) -> Exception:
    """`error`, or a full disk or a server that has ended where that is why a library failed in words of its own."""
    if not isinstance(error, SpectraMindError):
        for place in (*invocation.runs, invocation.store()):
            if place.exists() and shutil.disk_usage(place).free < FULL_DISK:
                cure = "free space or choose another outputs.dir and outputs.store"
                return StoreError(f"{place}: cannot be written (No space left on device); {cure}")
        if (why := server_failure()) is not None:
            home = os.environ["PREFECT_HOME"]
            return StoreError(f"{home}: Prefect's server ended ({why}); restore its files there, or move them away")
    return error


def _terminate(_number: int, _frame: Any) -> NoReturn:
    # As Ctrl-C does, which reaches the whole process group: otherwise pools wait for their workers to finish.
    for child in multiprocessing.active_children():
        child.terminate()
    raise SystemExit(TERMINATED)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, FutureWarning | UserWarning):
        print(f"warning: {message}", file=sys.stderr)


def _log(invocation: Invocation, status: str, error: BaseException | None) -> None:
    """Log an invocation that made no run; one that did has been logged by it."""
    if invocation.runs or invocation.dry_run or invocation.cfg is not None:
        return
    from flows.journal import DebugLog

    message = None if error is None else f"{type(error).__name__}: {error}"
    try:
        DebugLog.of(invocation.store()).entry(invocation.name, status, sys.argv[2:], {"error": message})
    except OSError as problem:
        if isinstance(error, StoreError):  # it says the same
            return
        print(f"warning: this invocation could not be logged ({problem})", file=sys.stderr)


def _with_own_directory(settings: Settings, number: int) -> Settings:
    """Runs of a sweep share `outputs.dir` as their parent."""
    if settings.outputs.dir is None:
        return settings
    outputs = replace(settings.outputs, dir=settings.outputs.dir / f"{number:03d}")
    return settings.model_copy(update={"outputs": outputs})


def _command_class(keys: tuple[str, ...]) -> type[typer.core.TyperCommand]:
    class WithSettings(typer.core.TyperCommand):
        """A command whose help ends with the settings that matter most to it."""

        def format_help(self, ctx: Any, formatter: Any) -> None:
            super().format_help(ctx, formatter)
            if keys:
                from flows.settings_table import print_settings

                print_settings(keys, "Settings (all of them: spectramind settings)")

    return WithSettings
