"""One Prefect task, remembered by the content of what it depends on.

A stage's result is small JSON: paths inside the store, digests, numbers. It is keyed by the digests of its inputs, the
slice of the settings that it depends on and the digest of its code, and kept in the store, so any process finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import task
from prefect.context import TaskRunContext

Json = Any
"""What JSON can hold."""


def _key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    key: str = parameters["key"]
    return key


@task(cache_key_fn=_key, persist_result=True, result_serializer="json")
def stage(key: str, compute: Callable[[], Json]) -> Json:
    """`compute()`, unless a result for `key` is stored."""
    return compute()


def remembered(
    name: str, key: str, compute: Callable[[], Json], storage: Path, is_sound: Callable[[Json], bool] | None = None
) -> Json:
    """Run `compute` as the task `name`, or take the result stored under `key`.

    A stored result may outlive the files that it speaks of: where `is_sound` says no, it is computed again.
    """
    named = stage.with_options(task_run_name=name, result_storage=storage.resolve())
    result = named(key, compute)
    if is_sound is not None and not is_sound(result):
        again = stage.with_options(
            task_run_name=f"{name} (again)", result_storage=storage.resolve(), refresh_cache=True
        )
        result = again(key, compute)
    return result
