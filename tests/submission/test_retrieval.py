"""The table for retrieval codes."""

from __future__ import annotations

import numpy as np
import pytest

from spectramind.errors import InputError
from spectramind.submission.retrieval import bin_widths, retrieval_table

WAVELENGTHS = np.array([0.7, *np.geomspace(1.952, 3.895, 282)])


def test_widths_tile_the_axis() -> None:
    widths = bin_widths(WAVELENGTHS)
    assert widths[0] == pytest.approx(0.2)
    assert np.sum(widths[1:]) == pytest.approx(
        WAVELENGTHS[-1] - WAVELENGTHS[1] + (widths[1] + widths[-1]) / 2, rel=1e-9
    )
    assert np.all(widths > 0)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError):
        bin_widths(WAVELENGTHS[::-1])
    with pytest.raises(InputError):
        bin_widths(WAVELENGTHS[:5])
    with pytest.raises(InputError):
        retrieval_table(WAVELENGTHS, np.zeros((1, 283)), np.zeros((1, 283)))
