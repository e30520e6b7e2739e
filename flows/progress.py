"""Progress bars with the rate in planets per second and the time left."""

from __future__ import annotations

from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


class Progress:
    """One bar of `units` that are the work on so many `planets`; without a rate if they are not about planets.

    Units that were there already count as done but not towards the rate: it is that of the units made here, in the time
    that batches with such units took.
    """

    def __init__(self, bars: Bars, description: str, units: int, planets: int) -> None:
        self.made = 0
        self._description, self._units = description, units
        self._planets_per_unit = planets / max(units, 1)
        self._bars = bars
        self._task = bars.add_task(description, total=units, rate=None, units_per_s=None)
        self._reached, self._made_before = 0, 0
        self._started = self._batch_started = monotonic()

    def advance(self, made: bool = True) -> None:
        """A unit has arrived; whether it was made now."""
        self.made += made
        self._bars.advance(self._task)
        self._show_rate()

    def reach(self, units: int) -> None:
        """A batch of so many units is through, whether they were made now or before."""
        now = monotonic()
        if self.made == self._made_before:
            self._started += now - self._batch_started
        self._batch_started, self._made_before = now, self.made
        self._reached += units
        self._bars.update(self._task, completed=self._reached)
        self._show_rate()

    def close(self) -> None:
        """Take the bar away, and leave a line if there was something to do."""
        self._bars.remove_task(self._task)
        spent = self._seconds()
        if self.made and self._planets_per_unit and spent >= 1:
            took, rate = timedelta(seconds=round(spent)), self.made / spent * self._planets_per_unit
            line = f"{self._description:<22} {self.made} of {self._units} in {took}, {rate:.2g} planets/s"
            self._bars.console.print(line, highlight=False, soft_wrap=True)

    def _seconds(self) -> float:
        return max(monotonic() - self._started, 1e-3)

    def _show_rate(self) -> None:
        if self.made and self._planets_per_unit:
            units_per_s = self.made / self._seconds()
            self._bars.update(self._task, rate=units_per_s * self._planets_per_unit, units_per_s=units_per_s)


def progress_bars() -> Bars:
    """The bars of a run, several one below the other; nothing is shown where the output is not a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class _Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate, units_per_s = task.fields["rate"], task.fields["units_per_s"]
            if rate is None:
                return Text()
            left = timedelta(seconds=round((task.remaining or 0) / units_per_s))
            return Text(f"{rate:.2g} planets/s, {left} left", style="progress.data.speed")

    return Bars(TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), _Rate(), transient=True)
