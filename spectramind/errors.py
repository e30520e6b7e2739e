"""Everything that can go wrong, by name.

SpectraMindError
├── InputError           bad data or a bad file: stop, exit code 2
│   └── QuarantineError  one planet's files are unusable: the planet is set aside, the run goes on
├── SettingsError        unknown key, wrong type, value out of range: stop, exit code 2
├── StoreError           a shared store or output directory cannot be read or written
└── BudgetReached        the time budget is used up; the best result so far was delivered, exit code 75
"""

from __future__ import annotations

from pathlib import Path


class SpectraMindError(Exception):
    """Base class; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(SpectraMindError):
    """Input that cannot be used, told as one line: where, what was expected, what was found, what to do."""

    exit_code = 2

    def __init__(self, where: str | Path, expected: str, found: str, cure: str) -> None:
        self.where, self.expected, self.found, self.cure = str(where), expected, found, cure
        super().__init__(f"{where}: expected {expected}, found {found}. {cure}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str, str]]:
        return type(self), (self.where, self.expected, self.found, self.cure)


class QuarantineError(InputError):
    """One planet or visit is unusable; it is set aside by name and the rest of the data set goes on."""


class SettingsError(SpectraMindError):
    """A setting that is unknown, of the wrong type or out of range."""

    exit_code = 2


class StoreError(SpectraMindError):
    """A store or an output directory that cannot be read or written."""


class BudgetReached(SpectraMindError):
    """The time budget ended the work early; what was best so far has been delivered."""

    exit_code = 75
