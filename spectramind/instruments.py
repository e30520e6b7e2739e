"""The two Ariel instruments of the challenge, as their files lay them out.

Frame counts, time axes, gains and offsets are not here: they come from the files of each data set.
"""

from __future__ import annotations

from dataclasses import dataclass

N_WAVELENGTHS = 283
"""Bins of a spectrum: wl_1 is FGS1, wl_2..wl_283 are AIRS-CH0 in ascending wavelength."""


@dataclass(frozen=True)
class Instrument:
    """A detector: `rows` x `columns` pixels, of which columns `first`..`last` (inclusive) carry `n_bins` spectral bins.

    `dispersed` tells a spectrometer, whose columns are wavelengths in descending order, from a photometer, whose whole
    frame is one bin.
    """

    name: str
    rows: int
    columns: int
    first: int
    last: int
    dispersed: bool

    @property
    def n_pixels(self) -> int:
        return self.rows * self.columns

    @property
    def n_bins(self) -> int:
        return self.last - self.first + 1 if self.dispersed else 1

    @property
    def bin_columns(self) -> slice:
        """The detector columns that carry bins."""
        return slice(self.first, self.last + 1)

    @property
    def bin_pixels(self) -> list[int]:
        """Indices into the flattened frame of the pixels in the columns that carry bins, row by row."""
        columns = range(self.columns)[self.bin_columns]
        return [row * self.columns + column for row in range(self.rows) for column in columns]

    @property
    def spectral_slice(self) -> slice:
        """Of the 283-bin spectrum, the bins that this instrument measures."""
        return slice(1, N_WAVELENGTHS) if self.dispersed else slice(0, 1)


FGS1 = Instrument("FGS1", rows=32, columns=32, first=0, last=31, dispersed=False)
AIRS = Instrument("AIRS-CH0", rows=32, columns=356, first=39, last=320, dispersed=True)
INSTRUMENTS = (FGS1, AIRS)
