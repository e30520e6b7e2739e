"""The order of the detector effects, from counts to a light curve, and nothing else.

    counts → electrons → linearity → dark → CDS → flat → cosmic rays → bad pixels → extraction → outliers → jitter
    → foreground → time bins

A sample of the pairs tells how the pixels are summed up; then all pairs go through the frame steps, either in one
compiled pass (`fused`) or in NumPy step by step (`plain`). The foreground is constant in time and the extraction
linear, so it is subtracted from the extracted series; it is told from the star's wings by time, which needs that
series.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spectramind.calibration.aperture import measure_aperture
from spectramind.calibration.detector import prepare, usable_pairs
from spectramind.calibration.light_curve import to_light_curve
from spectramind.calibration.options import CalibrationOptions
from spectramind.calibration.summary import summarise
from spectramind.instruments import INSTRUMENTS, Instrument
from spectramind.types import CalibratedVisit, LightCurve, RawExposure, StepStatistics


def calibrate_visit(
    read: Callable[[Instrument], RawExposure],
    planet_id: str,
    visit: int,
    options: CalibrationOptions,
    instruments: Sequence[Instrument] = INSTRUMENTS,
) -> CalibratedVisit:
    """Read and calibrate one instrument after the other, holding the frames of one at a time.

    QuarantineError, from `read` or from here, if the frames are unusable.
    """
    curves, steps, summary = {}, {}, {}
    for instrument in instruments:
        name = instrument.name
        curves[name], steps[name], summary[name] = calibrate_exposure(read(instrument), options)
    return CalibratedVisit(planet_id, visit, curves, steps, summary)


def calibrate_exposure(
    raw: RawExposure, options: CalibrationOptions
) -> tuple[LightCurve, tuple[StepStatistics, ...], dict[str, float]]:
    """The light curve of one instrument, the statistics of each step, and a row of summary numbers.

    QuarantineError if no star stands out of the noise or most samples are saturated.
    """
    detector = prepare(raw, options)
    aperture, frame_steps = measure_aperture(detector, options, raw.source)
    if options.engine == "fused":
        from spectramind.calibration.fused import extract
    else:
        from spectramind.calibration.plain import extract
    series = extract(detector, aperture, options)
    curve, series_steps = to_light_curve(series, detector, aperture, raw.wavelength_um, options)
    row = summarise(
        curve,
        float(detector.bad.mean()),
        float(series.saturated.mean()),
        float(1.0 - usable_pairs(series.saturated).mean()),
        series.replaced_share,
    )
    return curve, (*frame_steps, *series_steps), row
