"""What the rules know of the wavelength axis: which bins belong to which molecule, and the shapes of their bands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectramind.errors import InputError
from spectramind.losses.options import MoleculeWindows, Window
from spectramind.types import Floats

Band = tuple[float, float, float]
"""Centre in um, width (sigma of ln wavelength), strength relative to the molecule's strongest band."""

BANDS: Mapping[str, tuple[Band, ...]] = {
    "h2o": ((1.88, 0.06, 1.0), (2.66, 0.06, 1.0), (3.17, 0.06, 0.1)),
    "co2": ((2.01, 0.03, 0.3), (2.69, 0.02, 1.0), (2.77, 0.02, 1.0), (4.26, 0.05, 3.0)),
    "ch4": ((2.20, 0.05, 0.3), (2.32, 0.05, 0.3), (3.31, 0.06, 1.0)),
}
"""The vibration-rotation bands between 1.8 and 4.3 um (centres: Herzberg 1945, Infrared and Raman Spectra), one
Gaussian each, with round widths and strengths of the order of those at 1000 K."""


@dataclass(frozen=True)
class SpectralAxis:
    """Constants of the rules for one set of wavelengths.

    By molecule: `windows` bins of its bands; `templates` (bins,) its bands, 0 at FGS1 and 1 at most; `window_bases`
    (bins of the window, 3) for each window, orthonormal: level, slope, template; `parabolas` likewise: level, slope,
    curvature; `members` (bins,) equal shares of the bins in its windows, with sum 1.
    For all: `continuum` (bins,) equal shares of the AIRS bins outside all windows; `atmosphere` (AIRS bins, 5) level,
    slope in ln wavelength, and the templates; `atmosphere_fit` (5, AIRS bins), its pseudo-inverse, which times a
    spectrum gives the least-squares coefficients.
    """

    windows: Mapping[str, tuple[slice, ...]]
    templates: Mapping[str, Tensor]
    window_bases: Mapping[str, tuple[Tensor, ...]]
    parabolas: Mapping[str, tuple[Tensor, ...]]
    members: Mapping[str, Tensor]
    continuum: Tensor
    atmosphere: Tensor
    atmosphere_fit: Tensor

    @property
    def n_bins(self) -> int:
        return int(self.continuum.shape[0])


def spectral_axis(
    wavelength_um: Floats,
    windows: MoleculeWindows,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> SpectralAxis:
    """The axis of `wavelength_um` (bins,): FGS1 first, then AIRS ascending.

    Raises InputError where a window leaves the axis, or the windows leave no continuum.
    """
    n_bins = wavelength_um.size
    for molecule, bins in windows.by_molecule.items():
        for first, last in bins:
            if last >= n_bins:
                raise InputError(
                    f"windows of {molecule}",
                    f"bins within 1..{n_bins - 1}",
                    f"[{first}, {last}]",
                    "Give windows that lie on the data set's wavelengths.",
                )
    slices = {molecule: tuple(map(_slice, bins)) for molecule, bins in windows.by_molecule.items()}
    templates = {molecule: band_template(molecule, wavelength_um) for molecule in slices}
    members = {molecule: _members(group, n_bins) for molecule, group in slices.items()}
    continuum = (np.arange(n_bins) > 0) & ~np.any(list(members.values()), axis=0)
    if not np.any(continuum):
        raise InputError(
            "windows of the molecules", "some AIRS bins outside all windows", "none", "Make the windows narrower."
        )
    log_wavelength = np.log(wavelength_um[1:])
    atmosphere = np.column_stack(
        [np.ones(n_bins - 1), log_wavelength - log_wavelength.mean(), *(t[1:] for t in templates.values())]
    )

    def tensor(values: Floats) -> Tensor:
        return torch.as_tensor(values, dtype=dtype, device=device)

    return SpectralAxis(
        windows=slices,
        templates={molecule: tensor(template) for molecule, template in templates.items()},
        window_bases={m: tuple(tensor(_basis(templates[m][window])) for window in slices[m]) for m in slices},
        parabolas={m: tuple(tensor(_basis(_parabola(window))) for window in slices[m]) for m in slices},
        members={molecule: tensor(inside / inside.sum()) for molecule, inside in members.items()},
        continuum=tensor(continuum / continuum.sum()),
        atmosphere=tensor(atmosphere),
        atmosphere_fit=tensor(np.linalg.pinv(atmosphere)),
    )


def band_template(molecule: str, wavelength_um: Floats) -> Floats:
    """The molecule's bands at `wavelength_um` (bins,), 0 in the FGS1 bin, 1 at their highest AIRS bin."""
    log_wavelength = np.log(wavelength_um)
    bands = np.zeros(wavelength_um.shape)
    for centre, width, strength in BANDS[molecule]:
        bands += strength * np.exp(-0.5 * ((log_wavelength - np.log(centre)) / width) ** 2)
    bands[0] = 0.0
    scaled: Floats = bands / bands.max()
    return scaled


def _slice(window: Window) -> slice:
    return slice(window[0], window[1] + 1)


def _members(windows: tuple[slice, ...], n_bins: int) -> NDArray[np.bool_]:
    inside = np.zeros(n_bins, dtype=bool)
    for window in windows:
        inside[window] = True
    return inside


def _parabola(window: slice) -> Floats:
    values: Floats = np.linspace(-1.0, 1.0, window.stop - window.start) ** 2
    return values


def _basis(shape: Floats) -> Floats:
    """Orthonormal level, slope and `shape` (bins, 3)."""
    columns = np.column_stack([np.ones(shape.size), np.linspace(-1.0, 1.0, shape.size), shape])
    basis: Floats = np.linalg.qr(columns)[0]
    return basis
