"""The steps from counts to CDS pairs and their order, one module per detector effect."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spectramind.calibration.analog_to_digital import to_electrons
from spectramind.calibration.correlated_double_sampling import difference
from spectramind.calibration.dark_current import subtract_dark
from spectramind.calibration.detector import Detector
from spectramind.calibration.flat_field import divide_flat
from spectramind.calibration.nonlinearity import linearise
from spectramind.calibration.options import CalibrationOptions
from spectramind.calibration.samples import Samples


def electrons(counts: NDArray[np.uint16], detector: Detector) -> Samples:
    """Reads (n, R, C) of an exposure in electrons."""
    return to_electrons(counts, detector.adc, detector.frames.read, detector.bad)


def frame_steps(detector: Detector, options: CalibrationOptions) -> list[tuple[str, Callable[[Samples], Samples]]]:
    """Name and function of the steps from electrons to CDS pairs, in order, without those that are switched off."""
    frames, integration = detector.frames, detector.integration_s

    def dark(samples: Samples) -> Samples:
        return subtract_dark(samples, frames.dark, np.resize(integration, len(samples.signal)))

    steps: list[tuple[str, Callable[[Samples], Samples]]] = []
    if options.correct_linearity:
        steps.append(("nonlinearity", lambda samples: linearise(samples, frames.linear_corr)))
    if options.subtract_dark:
        steps.insert(0 if options.order == "dark_linearity" else len(steps), ("dark_current", dark))
    long_first = bool(integration[0] > integration[1])
    steps.append(("correlated_double_sampling", lambda samples: difference(samples, long_first)))
    if options.divide_flat:
        steps.append(("flat_field", lambda samples: divide_flat(samples, frames.flat)))
    return steps
