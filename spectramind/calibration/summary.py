"""One row of numbers for each light curve: what the data contracts judge and the data-quality report shows."""

from __future__ import annotations

import numpy as np

from spectramind.calibration.statistics import point_to_point
from spectramind.types import LightCurve, Quality


def summarise(
    curve: LightCurve,
    bad_pixel_share: float,
    saturated_share: float,
    unusable_pairs_share: float,
    outlier_share: float,
) -> dict[str, float]:
    """The row of `curve`, with the shares of bad pixels, saturated samples, unusable pairs and replaced samples."""
    good = (curve.quality & Quality.UNUSABLE) == 0
    columns, rows = good.any(axis=0), good.any(axis=1)
    white = curve.flux[np.ix_(rows, columns)].sum(axis=1)
    level = float(np.median(white))
    expected = float(np.sqrt(np.median(curve.variance[np.ix_(rows, columns)].sum(axis=1))))
    pairs = curve.n_pairs[rows]
    photon = float(np.sqrt(level / np.median(pairs)))
    measured = point_to_point(white)
    tenth = max(len(white) // 10, 1)
    motion = [float(np.ptp(curve.channels[name])) for name in ("centroid_x", "centroid_y") if name in curve.channels]
    return {
        "electrons_per_pair": level,
        "n_pairs": float(curve.n_pairs.sum()),
        "scatter_ppm": 1e6 * measured / level,
        "noise_over_photon": measured / photon,
        "noise_over_propagated": measured / expected,
        "drift": float(np.median(white[-tenth:]) / np.median(white[:tenth]) - 1.0),
        "bad_pixel_share": bad_pixel_share,
        "saturated_share": saturated_share,
        "unusable_pairs_share": unusable_pairs_share,
        "outlier_share": outlier_share,
        "foreground_electrons": float(curve.foreground[columns].sum()),
        "centroid_motion_px": max(motion, default=0.0),
    }
