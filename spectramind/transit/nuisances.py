"""What a light curve depends on besides the spectrum: geometry, limb darkening, mid-transit, drift; and what is known
of them.

A planet's nuisances are one vector: those `shared` by all its visits (geometry relative to the star table, limb
darkening), then a block for each visit (mid-transit, clock offset of FGS1, drift). Priors are Gaussian, so that a
planet's posterior is linear algebra once its light curves are linearised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from spectramind.transit.bases import wavelength_basis
from spectramind.transit.options import TransitOptions
from spectramind.types import Floats, Star

LOCAL = ("depth", "axis", "impact", "u1", "u2", "mid_time")
"""Parameters of one wavelength bin's light curve, before its drift coefficients: `axis` is ln(sma / table), `impact`
the change of b^2 in units of `impact_unit`, `mid_time` in hours from the centre of the window."""
N_GEOMETRY = 2
N_CLOCK = 2
SOLAR_TEMPERATURE = 5772.0
FIRST_REMAINDER = 0.1
"""Drift of AIRS that is not f(t) g(w), relative to it, before anything is learned."""
FIRST_SHARED = 0.3
"""Drift of FGS1 that is f(t) of AIRS, relative to the white drift of AIRS, before anything is learned."""
NO_SHARED = 1e-4
"""The same where there is none: as good as nothing, and yet a variance."""


def impact_parameter(star: Star) -> float:
    """Impact parameter of the star table's orbit, in stellar radii."""
    return abs(star.sma * math.cos(math.radians(star.i)))


def impact_unit(star: Star) -> float:
    """d(b^2) that one unit of `impact` stands for: 2b, kept away from zero, where b^2 has no slope in b."""
    return 2.0 * max(impact_parameter(star), 0.15)


def temperature_terms(star: Star) -> Floats:
    """1, t, t^2 of the star's temperature, on which limb darkening is regressed: (3,)."""
    t = (star.Ts - SOLAR_TEMPERATURE) / 1000.0
    return np.array([1.0, t, t * t])


@dataclass(frozen=True)
class Layout:
    """Where each nuisance stands in the vector of a planet with `n_visits` visits."""

    limb_darkening_colours: int
    drift_degree: int
    drift_colours: int
    n_visits: int

    @classmethod
    def of(cls, options: TransitOptions, n_visits: int) -> Layout:
        return cls(options.limb_darkening_colours, options.drift_degree, options.drift_colours, n_visits)

    @property
    def n_shared(self) -> int:
        return N_GEOMETRY + 2 * self.limb_darkening_colours + 2

    @property
    def n_per_visit(self) -> int:
        return N_CLOCK + self.drift_degree * (self.drift_colours + 1)

    @property
    def size(self) -> int:
        return self.n_shared + self.n_visits * self.n_per_visit

    def visit(self, position: int) -> slice:
        start = self.n_shared + position * self.n_per_visit
        return slice(start, start + self.n_per_visit)

    def design(self, dispersed: bool, wavelength_um: Floats, position: int) -> Floats:
        """(B, q - 1, size): how a bin's local parameters after `depth` follow from the vector, in visit `position`."""
        colours, degree = self.limb_darkening_colours, self.drift_degree
        design = np.zeros((wavelength_um.size, len(LOCAL) - 1 + degree, self.size))
        design[:, 0, 0] = design[:, 1, 1] = 1.0
        start = self.visit(position).start
        design[:, 4, start] = 1.0
        drift = start + N_CLOCK
        if dispersed:
            smooth = wavelength_basis(wavelength_um, colours)
            design[:, 2, 2 : 2 + colours] = smooth
            design[:, 3, 2 + colours : 2 + 2 * colours] = smooth
            drift_colours = wavelength_basis(wavelength_um, self.drift_colours)
            for k in range(degree):
                first = drift + k * self.drift_colours
                design[:, 5 + k, first : first + self.drift_colours] = drift_colours
        else:
            design[:, 2, 2 + 2 * colours] = design[:, 3, 3 + 2 * colours] = 1.0
            design[:, 4, start + 1] = 1.0
            first = drift + degree * self.drift_colours
            design[:, 5 : 5 + degree, first : first + degree] = np.eye(degree)
        return design


@dataclass(frozen=True)
class NuisancePrior:
    """Knowledge of the nuisances.

    `shared_law` (n_shared, 3) times `temperature_terms` is the mean of the shared nuisances, `shared_covariance` their
    scatter about it; `visit_mean`, `visit_covariance` describe each visit's own. A drift is f(t) g(w) and a remainder:
    `visit_covariance` holds the remainder, `drift_time` (degree, degree) and `drift_colour` (colours + 1, colours + 1),
    of trace 1, the covariances of f and g; the last of g is that of FGS1, small where it drifts by itself. A free drift
    is remainder alone, `drift_time` is then (0, 0).
    Visits drift by very different amounts: a visit's drift is a draw from all this times a scale of its own.
    """

    shared_law: Floats
    shared_covariance: Floats
    visit_mean: Floats
    visit_covariance: Floats
    drift_time: Floats
    drift_colour: Floats

    def mean(self, star: Star, n_visits: int) -> Floats:
        """(size,) of a planet with `n_visits` visits."""
        return np.concatenate([self.shared_law @ temperature_terms(star), *[self.visit_mean] * n_visits])

    def covariance(self, n_visits: int) -> Floats:
        """(size, size) for drifts of typical size, f(t) g(w) by its second moments as if it were Gaussian."""
        return np.asarray(block_diag(self.shared_covariance, *[self._visit()] * n_visits))

    def remainder(self, n_visits: int) -> Floats:
        """(size, size): the same without f(t) g(w)."""
        return np.asarray(block_diag(self.shared_covariance, *[self.visit_covariance] * n_visits))

    @property
    def separable(self) -> bool:
        """Whether f(t) g(w) is part of the drift."""
        return self.drift_time.size > 0

    @property
    def drift_degree(self) -> int:
        return int((len(self.visit_mean) - N_CLOCK) // len(self.drift_colour))

    def dispersed_drift(self, position: int) -> slice:
        """Where the drift of AIRS stands in the vector: degree by degree the coefficients of all colours."""
        start = len(self.shared_law) + position * len(self.visit_mean) + N_CLOCK
        return slice(start, start + self.drift_degree * (len(self.drift_colour) - 1))

    def dispersionless_drift(self, position: int) -> slice:
        """Where the drift of FGS1 stands in the vector."""
        start = self.dispersed_drift(position).stop
        return slice(start, start + self.drift_degree)

    def with_separate_drifts(self) -> NuisancePrior:
        """The same knowledge where FGS1 drifts by itself alone."""
        colour = self.drift_colour.copy()
        colour[-1], colour[:, -1] = 0.0, 0.0
        colour[-1, -1] = (NO_SHARED / FIRST_SHARED) ** 2 * self.drift_colour[-1, -1]
        return replace(self, drift_colour=colour)

    def with_free_drift(self) -> NuisancePrior:
        """The same knowledge for drifts that need not be products."""
        return replace(self, visit_covariance=self._visit(), drift_time=np.empty((0, 0)))

    def to_arrays(self) -> dict[str, Floats]:
        return {f"nuisance.{name}": getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> NuisancePrior:
        return cls(*(arrays[f"nuisance.{name}"] for name in cls.__dataclass_fields__))

    def _visit(self) -> Floats:
        visit = self.visit_covariance.copy()
        if self.separable:
            place = self._by_place()
            visit[N_CLOCK:, N_CLOCK:] += np.kron(self.drift_time, self.drift_colour)[place[:, None], place]
        return visit

    def _by_place(self) -> NDArray[np.intp]:
        """Of each coefficient of a visit's drift, in order, its row in time by colour, FGS1 being the last colour."""
        rows = np.arange(self.drift_degree * len(self.drift_colour)).reshape(self.drift_degree, -1)
        return np.concatenate([rows[:, :-1].ravel(), rows[:, -1]])


def first_guess(options: TransitOptions, window_h: float) -> NuisancePrior:
    """The prior before anything is learned. `window_h` is the length of a visit, about whose centre
    mid-transit scatters by a quarter.

    Limb darkening starts from a Sun-like star's (Claret 2000, A&A 363, 1081, rounded): weak in the infrared.
    """
    layout = Layout.of(options, 1)
    colours, degree = options.limb_darkening_colours, options.drift_degree
    law = np.zeros((layout.n_shared, 3))
    law[2, 0], law[2 + colours, 0] = 0.10, 0.17
    law[2 + 2 * colours, 0], law[3 + 2 * colours, 0] = 0.38, 0.20
    shrinking = options.limb_darkening_scatter / (1.0 + np.arange(colours))
    shared_scatter = np.concatenate(
        [
            [options.axis_scatter, options.impact_scatter],
            shrinking,
            shrinking,
            [options.limb_darkening_scatter, options.limb_darkening_scatter],
        ]
    )
    in_time = options.drift_scale / (1.0 + np.arange(degree))
    in_colour = 1.0 / (1.0 + np.arange(options.drift_colours))
    remainder = FIRST_REMAINDER * np.outer(in_time, in_colour).ravel()
    in_colour = np.append(in_colour, FIRST_SHARED)
    visit_scatter = np.concatenate([[window_h / 4, options.clock_scatter_h], remainder, in_time])
    colour_power = np.sum(in_colour**2)
    return NuisancePrior(
        law,
        np.diag(shared_scatter**2),
        np.zeros(layout.n_per_visit),
        np.diag(visit_scatter**2),
        np.diag(in_time**2) * colour_power,
        np.diag(in_colour**2) / colour_power,
    )
