"""Frame steps, cosmic-ray rejection and extraction of a whole exposure in one compiled pass, without frames between.

The same arithmetic as `plain`, in float64, pixel by pixel over stretches of time that stay in the processor's cache. A
bad pixel is never looked at: its neighbours carry its share into its bin. The kernels are compiled on first use, which
takes seconds, and kept beside this file or in the user's cache directory.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from spectramind.calibration.aperture import Aperture
from spectramind.calibration.bad_pixels import Repair, fold_weights
from spectramind.calibration.detector import Detector
from spectramind.calibration.options import CalibrationOptions
from spectramind.calibration.samples import Series
from spectramind.types import FULL_SCALE, Floats

_STRETCH = 2048
"""Pairs of one pixel at a time: some 40 KiB of float64."""
_MATH = {"contract", "nnan", "ninf", "nsz"}
"""No NaN and no infinity gets here, which lets minima and maxima use the processor's vector units."""
_LINEARITY_TERMS = 6
_SATURATED = np.uint16(FULL_SCALE)


class Pixels(NamedTuple):
    """What each pixel (R, C, …) needs: the dark current of both reads where it is subtracted before linearity, and of
    their difference where it is subtracted after it; the polynomial; one over the flat field; and its weights, of which
    `lent` is the sum of what it lends to bad pixels."""

    early_dark: Floats
    linear: Floats
    late_dark: Floats
    response: Floats
    bad: NDArray[np.bool_]
    threshold: Floats
    flux: Floats
    lent: Floats
    edge: Floats
    moments: Floats


class Loans(NamedTuple):
    """What repaired pixels borrow: pixel p of the flattened frame adds its samples times `weight[k]` to bin `bin[k]`,
    for k from `first[p]` to `first[p + 1]`."""

    first: NDArray[np.intp]
    bin: NDArray[np.intp]
    weight: Floats


_compiled = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_MATH)


def extract(detector: Detector, aperture: Aperture, options: CalibrationOptions) -> Series:
    """Series of all pairs; see `plain.extract`, whose result this is to rounding. ValueError for another detector's
    linearity polynomial than one of six terms."""
    frames = detector.frames
    if len(frames.linear_corr) != _LINEARITY_TERMS:
        raise ValueError(f"a linearity polynomial of {_LINEARITY_TERMS} terms, not {len(frames.linear_corr)}")
    reads, rows, columns = detector.counts.shape
    pairs, bins = reads // 2, columns if detector.instrument.dispersed else 1
    first_s, second_s = detector.integration_s
    early = options.order == "dark_linearity"
    sign = -1.0 if first_s > second_s else 1.0
    pixels = Pixels(
        early_dark=np.stack([frames.dark * first_s, frames.dark * second_s], axis=-1) * early,
        linear=np.ascontiguousarray(np.moveaxis(frames.linear_corr, 0, -1)),
        late_dark=frames.dark * (second_s - first_s) * (not early),
        response=sign / np.where(detector.bad, 1.0, frames.flat),
        bad=detector.bad,
        threshold=aperture.threshold,
        flux=aperture.flux,
        lent=fold_weights(aperture.flux, detector.repair) - np.where(detector.bad, 0.0, aperture.flux),
        edge=aperture.edge,
        moments=np.stack([fold_weights(moment, detector.repair) for moment in aperture.moments], axis=-1),
    )
    loans = _loans(detector.repair, aperture.flux, bins)
    flux, edge = np.zeros((bins, pairs)), np.zeros((bins, pairs))
    moments, removed = np.zeros((len(aperture.moments), pairs)), np.zeros(pairs)
    replaced, saturated = np.zeros((bins, pairs), np.bool_), np.zeros(pairs, np.int64)
    changed = 0
    for column in range(columns):
        changed += _extract_column(
            detector.counts.column(column),
            column,
            1.0 / detector.adc.gain,
            detector.adc.offset,
            pixels,
            loans,
            flux,
            edge,
            moments,
            replaced,
            removed,
            saturated,
        )
    return Series(
        flux.T,
        edge.T,
        (moments[1:] / moments[0]).T,
        replaced.T,
        removed,
        saturated / (rows * columns),
        changed / (rows * columns * pairs),
    )


def _loans(repair: Repair, flux_weights: Floats, bins: int) -> Loans:
    """Sorted by lender."""
    used = repair.weights != 0
    lender = repair.sources[used]
    to = np.broadcast_to((repair.bad % bins)[:, None], used.shape)[used]
    weight = (repair.weights * flux_weights.ravel()[repair.bad][:, None])[used]
    order = np.argsort(lender, kind="stable")
    first = np.searchsorted(lender[order], np.arange(flux_weights.size + 1))
    return Loans(first, to[order], weight[order])


@_compiled
def _extract_column(
    counts: tuple[NDArray[np.uint16], ...],
    column: int,
    electrons_per_count: float,
    offset: float,
    pixels: Pixels,
    loans: Loans,
    flux: Floats,
    edge: Floats,
    moments: Floats,
    replaced: NDArray[np.bool_],
    removed: Floats,
    saturated: NDArray[np.int64],
) -> int:
    """Add the pixels of a detector column, `counts` (reads,) of each row, to the series (bins, pairs).

    Returns how many samples were replaced.
    """
    bins, pairs = flux.shape
    columns = pixels.bad.shape[1]
    own_bin = column if bins > 1 else 0
    padded, cleaned = np.empty(_STRETCH + 4), np.empty(_STRETCH)
    outlier = np.empty(_STRETCH, np.bool_)
    changed = 0
    for start in range(0, pairs, _STRETCH):
        stop = min(start + _STRETCH, pairs)
        first, last = max(start - 2, 0), min(stop + 2, pairs)
        n = stop - start
        for row in range(len(counts)):
            saturates = _add_saturated(counts[row][2 * start : 2 * stop], saturated[start:stop])
            if pixels.bad[row, column]:
                continue
            _difference(
                counts[row][2 * first : 2 * last],
                electrons_per_count,
                offset,
                pixels.early_dark[row, column],
                pixels.linear[row, column],
                pixels.late_dark[row, column],
                pixels.response[row, column],
                padded[first - start + 2 :],
            )
            if first == start:
                padded[0], padded[1] = padded[4], padded[3]
            if last == stop:
                padded[n + 2], padded[n + 3] = padded[n], padded[n - 1]
            clean = padded[2 : n + 2]
            weight = pixels.flux[row, column]
            threshold = pixels.threshold[row, column]
            if saturates or _jumps(padded[1 : n + 3], threshold):
                clean = cleaned[:n]
                found = _reject(padded, threshold, clean, outlier)
                if saturates:
                    found += _reject_saturated(counts[row][2 * start : 2 * stop], padded, clean, outlier)
                changed += found
                for i in range(n if found else 0):
                    if outlier[i]:
                        replaced[own_bin, start + i] |= weight > 0.0
                        removed[start + i] += (weight + pixels.lent[row, column]) * (padded[i + 2] - clean[i])
            _accumulate(weight, clean, flux[own_bin, start:stop])
            if pixels.lent[row, column] != 0.0:
                pixel = row * columns + column
                for loan in range(loans.first[pixel], loans.first[pixel + 1]):
                    _accumulate(loans.weight[loan], clean, flux[loans.bin[loan], start:stop])
            if pixels.edge[row, column] != 0.0:
                _accumulate(pixels.edge[row, column], clean, edge[own_bin, start:stop])
            for moment in range(len(moments)):
                if pixels.moments[row, column, moment] != 0.0:
                    _accumulate(pixels.moments[row, column, moment], clean, moments[moment, start:stop])
    return changed


@_compiled
def _difference(
    counts: NDArray[np.uint16],
    electrons_per_count: float,
    offset: float,
    early_dark: Floats,
    c: Floats,
    late_dark: float,
    response: float,
    result: Floats,
) -> None:
    """Counts of one pixel (2 n,) to its CDS pairs (n,): electrons, linearity, dark current, difference, flat field.

    The polynomial's constant drops out of the difference.
    """
    c1, c2, c3, c4, c5 = c[1], c[2], c[3], c[4], c[5]
    first_offset, second_offset = offset - early_dark[0], offset - early_dark[1]
    for i in range(len(counts) // 2):
        x = np.float64(np.int32(counts[2 * i])) * electrons_per_count + first_offset
        y = np.float64(np.int32(counts[2 * i + 1])) * electrons_per_count + second_offset
        first = ((((x * c5 + c4) * x + c3) * x + c2) * x + c1) * x
        second = ((((y * c5 + c4) * y + c3) * y + c2) * y + c1) * y
        result[i] = (second - first - late_dark) * response


@_compiled
def _jumps(series: Floats, threshold: float) -> bool:
    """Whether neighbours ever differ by over `threshold`. If not, no sample is that far from the median of the five
    around it, which both of its neighbours are among."""
    jumps = 0
    for i in range(len(series) - 1):
        jumps += abs(series[i + 1] - series[i]) > threshold
    return jumps > 0


@_compiled
def _reject(padded: Floats, threshold: float, clean: Floats, outlier: NDArray[np.bool_]) -> int:
    """`clean` (n,): the series padded[2:-2] with outliers replaced; returns their number."""
    found = 0
    for i in range(len(clean)):
        a, b, c, d, e = padded[i], padded[i + 1], padded[i + 2], padded[i + 3], padded[i + 4]
        one, other = max(min(a, b), min(d, e)), min(max(a, b), max(d, e))  # the middle two of the neighbours
        median_of_all = max(min(one, other), min(max(one, other), c))
        is_outlier = abs(c - median_of_all) > threshold
        clean[i] = 0.5 * (one + other) if is_outlier else c
        outlier[i] = is_outlier
        found += is_outlier
    return found


@_compiled
def _add_saturated(counts: NDArray[np.uint16], saturated: NDArray[np.int64]) -> bool:
    """Count the pairs (n,) of which a read of `counts` (2 n,) is saturated; returns whether there are any."""
    any_saturated = False
    for i in range(len(counts)):
        any_saturated |= counts[i] == _SATURATED
    if not any_saturated:
        return False
    for i in range(len(saturated)):
        saturated[i] += max(counts[2 * i], counts[2 * i + 1]) == _SATURATED
    return True


@_compiled
def _reject_saturated(counts: NDArray[np.uint16], padded: Floats, clean: Floats, outlier: NDArray[np.bool_]) -> int:
    """Replace the samples of which a read of `counts` (2 n,) is saturated; returns the number of new outliers."""
    found = 0
    for i in range(len(clean)):
        if max(counts[2 * i], counts[2 * i + 1]) == _SATURATED and not outlier[i]:
            outlier[i] = True
            clean[i] = np.median(np.array([padded[i], padded[i + 1], padded[i + 3], padded[i + 4]]))
            found += 1
    return found


@_compiled
def _accumulate(weight: float, values: Floats, total: Floats) -> None:
    for i in range(len(total)):
        total[i] += weight * values[i]
