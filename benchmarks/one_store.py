"""Several processes run one command on one store at once: each unit must be made once, all results be the same.

    python benchmarks/one_store.py [DATA_ROOT] [--processes N ...] [KEY=VALUE ...]

Ends with 1 if a unit was made twice or is damaged, or if a result differs from that of a process alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from kill_anywhere import SERVER, Pipeline, differences, execute, simulated, warm

COMMAND = "calibrate"


def logged(arguments: list[str], terminal: Path, made: Path) -> None:
    """Run the command and append a line to `made` for every unit that this process puts in its place."""

    def watch(event: str, places: tuple[object, ...]) -> None:
        if event == "os.rename" and str(places[0]).endswith(".partial") and ".partial" not in str(places[1]):
            with made.open("a", encoding="utf-8") as stream:
                stream.write(f"{places[1]}\n")

    sys.addaudithook(watch)
    execute(arguments, terminal, "together")


def together(root: Path, folder: Path, count: int, overrides: tuple[str, ...]) -> tuple[Counter[str], list[Pipeline]]:
    """How often each unit was made, and the pipelines of `count` processes after they have worked on one store."""
    folder.mkdir()
    store, made = folder / "store", folder / "made.txt"
    made.touch()
    pipelines, processes = [], []
    for number in range(count):
        pipeline = Pipeline(COMMAND, root, folder / str(number), overrides)
        pipeline.folder.mkdir()
        (pipeline.folder / "store").symlink_to(store)
        places = (f"data.root={root}", f"outputs.store={store}", f"outputs.dir={pipeline.folder}/run")
        process = SERVER.Process(target=logged, args=([COMMAND, *places, *overrides], pipeline.terminal, made))
        pipelines.append(pipeline)
        processes.append(process)
    for process in processes:
        process.start()
    for pipeline, process in zip(pipelines, processes, strict=True):
        process.join()
        pipeline.require_success(process)
    return Counter(made.read_text(encoding="utf-8").splitlines()), pipelines


def compare(root: Path, folder: Path, counts: list[int], overrides: tuple[str, ...]) -> bool:
    """Whether every number of processes makes each unit once, and what a process alone makes."""
    sound, expected = True, {}
    for count in [1, *counts]:
        started = time.monotonic()
        made, pipelines = together(root, folder / f"together{count}", count, overrides)
        expected = expected or pipelines[0].digests()
        wrong = [f"{Path(unit).name} made {times} times" for unit, times in made.items() if times > 1]
        wrong += [name for pipeline in pipelines for name in differences(expected, pipeline.digests())]
        wrong += pipelines[0].problems()
        verdict = "all equal" if not wrong else f"{len(wrong)} wrong: {', '.join(wrong[:5])}"
        print(f"{count} processes: {time.monotonic() - started:.0f} s, {len(made)} units made, {verdict}", flush=True)
        sound &= not wrong
    return sound


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("root", nargs="?", type=Path, metavar="DATA_ROOT")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 8], metavar="N")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as place, warm(Path(place)):
        folder = Path(place)
        root = arguments.root or simulated(folder)
        same = compare(root, folder, arguments.processes, tuple(arguments.overrides))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
