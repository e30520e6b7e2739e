"""Child process of the fault tests: builds N small units below a store, in order, and prints one line for each.

Usage: python build_units.py STORE N [largest file size in bytes]
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from spectramind.errors import StoreError
from spectramind.provenance.digests import FileDigests
from spectramind.provenance.units import UnitResult, build_unit

FILES, FILE_BYTES = 4, 20_000


def identity(number: int) -> dict[str, object]:
    return {"kind": "test", "inputs": {"number": f"{number:064x}"}, "settings": {"files": FILES}, "code": "0"}


def fill(number: int, folder: Path) -> dict[str, int]:
    for index in range(FILES):
        file = folder / f"group{index % 2}" / f"chunk{index}"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes([number, index]) * (FILE_BYTES // 2))
    return {"files": FILES}


def build(store: Path, number: int) -> UnitResult:
    digests = FileDigests(store / "digests.sqlite")
    return build_unit(store / f"unit{number}", identity(number), lambda folder: fill(number, folder), digests=digests)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
    print("ready", flush=True)
    for n in range(int(sys.argv[2])):
        try:
            result = build(Path(sys.argv[1]), n)
        except StoreError as error:
            print("StoreError", error, flush=True)
        else:
            print("computed" if result.computed else "found", n, result.digest, flush=True)
