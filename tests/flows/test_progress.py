"""Rates count what was made now, in the time that it took."""

from __future__ import annotations

import pytest

from flows.progress import Progress, progress_bars


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in its only item."""
    now = [100.0]
    monkeypatch.setattr("flows.progress.monotonic", lambda: now[0])
    return now


def test_units_of_an_earlier_run_do_not_count_towards_the_rate(clock: list[float]) -> None:
    bars = progress_bars()
    progress = Progress(bars, "Fitting", units=40, planets=20)
    clock[0] += 50
    progress.reach(16)  # found, after a long check
    for made in (False, True, True, True):
        clock[0] += 1
        progress.advance(made)
    (task,) = bars.tasks
    assert task.completed == 20
    assert task.fields["units_per_s"] == pytest.approx(3 / 4)
    assert task.fields["rate"] == pytest.approx(3 / 8)  # two units are one planet
    assert str(bars.columns[-1](task)) == "0.38 planets/s, 0:00:27 left"
    clock[0] += 4
    progress.reach(16)
    assert (task.completed, progress.made) == (32, 3)
