"""The readable chain: every frame step on all reads with NumPy, one module per effect. The truth for the fused one.

Frames go through in blocks that fit the processor's cache; the CDS pairs of the whole exposure are kept.
"""

from __future__ import annotations

import numpy as np

from spectramind.calibration import cosmic_rays, extraction
from spectramind.calibration.aperture import Aperture
from spectramind.calibration.bad_pixels import fill_in
from spectramind.calibration.detector import Detector, saturated_pairs
from spectramind.calibration.frame_steps import electrons, frame_steps
from spectramind.calibration.options import CalibrationOptions
from spectramind.calibration.samples import Samples, Series
from spectramind.types import Floats

_BLOCK_SAMPLES = 1 << 18
"""Detector samples calibrated at once: 2 MiB of float64."""


def extract(detector: Detector, aperture: Aperture, options: CalibrationOptions) -> Series:
    """Series of all pairs: frame steps, cosmic-ray rejection, repair of bad pixels, weighted sums."""
    dispersed = detector.instrument.dispersed
    pairs = _all_pairs(detector, options)
    touched = (aperture.flux > 0) & ~detector.bad
    block = max(8, _BLOCK_SAMPLES // pairs[0].size)
    flux, edge, moments, replaced, removed, saturated = [], [], [], [], [], []
    changed = 0
    for start in range(0, len(pairs), block):
        stop = min(start + block, len(pairs))
        first, last = max(start - cosmic_rays.HALF_WINDOW, 0), min(stop + cosmic_rays.HALF_WINDOW, len(pairs))
        inside = slice(start - first, stop - first)
        invalid = saturated_pairs(detector.counts.frames(np.arange(2 * first, 2 * last)))
        clean, outlier = cosmic_rays.reject(pairs[first:last], aperture.threshold, invalid)
        clean, outlier = _repaired(clean[inside], detector), outlier[inside] & ~detector.bad
        changed += int(np.count_nonzero(outlier))
        saturated.append(invalid[inside].mean(axis=(1, 2)))
        flux.append(extraction.weighted_sum(clean, aperture.flux, dispersed))
        edge.append(extraction.weighted_sum(clean, aperture.edge, dispersed))
        total, *others = [np.einsum("trc,rc->t", clean, moment) for moment in aperture.moments]
        moments.append(np.stack([other / total for other in others], axis=1))
        seen = np.any(outlier & touched, axis=1) if dispersed else np.any(outlier & touched, axis=(1, 2))[:, None]
        replaced.append(np.asarray(seen))
        unclean = extraction.weighted_sum(_repaired(pairs[start:stop], detector), aperture.flux, dispersed)
        removed.append((unclean - flux[-1]).sum(axis=1))
    return Series(
        np.concatenate(flux),
        np.concatenate(edge),
        np.concatenate(moments),
        np.concatenate(replaced),
        np.concatenate(removed),
        np.concatenate(saturated),
        changed / pairs.size,
    )


def _all_pairs(detector: Detector, options: CalibrationOptions) -> Floats:
    """CDS pairs (pairs, R, C), bad pixels included."""
    reads, rows, columns = detector.counts.shape
    steps = frame_steps(detector, options)
    pairs = np.empty((reads // 2, rows, columns))
    block = max(2, _BLOCK_SAMPLES // (rows * columns) // 2 * 2)
    for start in range(0, reads, block):
        samples = electrons(detector.counts.frames(np.arange(start, min(start + block, reads))), detector)
        for _, step in steps:
            samples = step(samples)
        pairs[start // 2 : start // 2 + len(samples.signal)] = samples.signal
    return pairs


def _repaired(frames: Floats, detector: Detector) -> Floats:
    nothing = np.zeros(frames.shape[1:])
    return fill_in(Samples(frames, nothing, nothing, detector.bad), detector.repair).signal
