"""How the pixels of one exposure are summed up: found from a sample of its pairs, the same for all of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectramind.calibration import extraction, foreground, pointing
from spectramind.calibration.bad_pixels import fill_in
from spectramind.calibration.detector import Detector
from spectramind.calibration.frame_steps import electrons, frame_steps
from spectramind.calibration.options import CalibrationOptions
from spectramind.calibration.samples import Samples
from spectramind.calibration.statistics import robust_std, scatter_ppm, step_statistics
from spectramind.errors import QuarantineError
from spectramind.types import Floats, StepStatistics

_FAINTEST = 10.0
"""Standard deviations by which the image stands out of noise, or there is no star in it."""
_BAD_VARIANCE = 4.0
"""By how much a repaired pixel is trusted less than a good one."""


class Aperture(NamedTuple):
    """Weights and limits (R, C) of one exposure.

    `flux` and `edge` weights on repaired frames, of the star's bins and of the border's mean; `moments` (M + 1, R, C),
    of which the first sums up the core of the image and the others describe its place and shape; `threshold` electrons
    from the running median beyond which a sample is a cosmic ray; `profile` the share of a bin's light in each pixel;
    `shot`, `noise` variance of one pair from photons and from everything else.
    """

    flux: Floats
    edge: Floats
    moments: Floats
    threshold: Floats
    profile: Floats
    shot: Floats
    noise: Floats


def measure_aperture(
    detector: Detector, options: CalibrationOptions, source: str
) -> tuple[Aperture, tuple[StepStatistics, ...]]:
    """The aperture, and what each frame step did to the sample. QuarantineError about `source` if there is no star."""
    dispersed = detector.instrument.dispersed
    follows = np.diff(detector.sample) == 1
    measured, steps = _frame_steps(follows, detector, options)
    typical = fill_in(measured, detector.repair)
    repaired = _statistics("bad_pixels", measured.signal, typical.signal, follows, detector, whole=True)
    steps = (*steps, repaired)
    image = np.median(typical.signal, axis=0)
    edge = foreground.border(image, detector.bad, options.edge_pixels, dispersed)
    light = image - extraction.weighted_sum(image[None], edge, dispersed)[0]
    variance = typical.noise + typical.shot
    if not light.sum() > _FAINTEST * np.sqrt(variance.sum() / len(typical.signal)):
        raise QuarantineError(source, "a star's light in usable pixels", "none", "Restore the exposure's files.")
    profile = extraction.spatial_profile(light, dispersed, options.profile_columns)
    flux = extraction.plain_weights(profile)
    if options.weighting == "optimal":
        flux = extraction.optimal_weights(profile, _doubted(variance, detector), dispersed)
    threshold = np.full(image.shape, np.finfo(np.float64).max)
    if options.reject_cosmic_rays:
        jumps = np.diff(measured.signal, axis=0)[follows]
        found = robust_std(jumps, axis=0) / np.sqrt(2.0)
        threshold = options.cosmic_ray_sigma * np.maximum(found, np.sqrt(measured.noise + measured.shot))
    core = flux > 0.5 * flux.max()
    components = options.jitter_components if options.jitter == "pca" else 0
    moments = pointing.image_moments(core, typical.signal, variance, dispersed, components)
    return Aperture(flux, edge, moments, threshold, profile, typical.shot, typical.noise), steps


def _frame_steps(
    follows: NDArray[np.bool_], detector: Detector, options: CalibrationOptions
) -> tuple[Samples, tuple[StepStatistics, ...]]:
    """The sampled pairs before repair, and the statistics of each frame step."""
    counts = detector.sampled_counts
    samples = electrons(counts, detector)
    statistics = [_statistics("analog_to_digital", counts, samples.signal, follows, detector)]
    for name, step in frame_steps(detector, options):
        before = samples.signal
        samples = step(samples)
        statistics.append(_statistics(name, before, samples.signal, follows, detector))
    return samples, tuple(statistics)


def _statistics(
    name: str, before: NDArray[Any], after: Floats, follows: NDArray[np.bool_], detector: Detector, whole: bool = False
) -> StepStatistics:
    """Of samples before and after a step; the white light curve is that of all pixels but the dead, of a `whole` frame
    with those that the step filled in."""
    alive = ~detector.frames.dead
    noise = [
        scatter_ppm(_white(signal, len(follows) + 1, pixels), follows)
        for signal, pixels in ((before, alive), (after, np.ones_like(alive) if whole else alive))
    ]
    changed = float(np.count_nonzero(before != after) / before.size) if before.shape == after.shape else 1.0
    return step_statistics(name, before, after, changed, *noise)


def _white(signal: NDArray[Any], pairs: int, pixels: NDArray[np.bool_]) -> Floats:
    """Sum of these pixels in each pair: of the difference of its reads where they are still apart."""
    total = signal.reshape(len(signal), -1) @ pixels.ravel().astype(np.float64)
    return np.asarray(total if len(total) == pairs else np.abs(total[1::2] - total[0::2]))


def _doubted(variance: Floats, detector: Detector) -> Floats:
    doubted = np.where(detector.bad, _BAD_VARIANCE * variance, variance)
    hopeless = detector.repair.bad[detector.repair.weights.sum(axis=1) == 0]
    doubted.ravel()[hopeless] = np.inf
    return doubted
