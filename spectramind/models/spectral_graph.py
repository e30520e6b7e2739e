"""The graph of a spectrum: node 0 is FGS1, nodes 1 to 282 are the AIRS bins in ascending wavelength.

Edges are directed, come in pairs and have a type. `adjacency`: bins within a few neighbours. `molecule`: bins of one
molecule's windows, linked at distances that double, so that any two are a few edges apart and the number of edges stays
near-linear. `seam`: mirrored pairs of bins on either side of the detector seam, instead of adjacency across it.
`instrument`: FGS1 with every AIRS bin.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from spectramind.errors import InputError
from spectramind.instruments import N_WAVELENGTHS
from spectramind.models.options import GraphOptions
from spectramind.models.windows import Windows, bins_inside
from spectramind.types import Floats

EDGE_TYPES = ("adjacency", "molecule", "seam", "instrument")
EDGE_FEATURES = ("wavelength difference", "molecules of source", "molecules of target", "seam")
Pairs = list[tuple[int, int]]


@dataclass(frozen=True)
class SpectralGraph:
    """`position` (283,) log wavelength from 0 (FGS1) to 1; `molecules` (283,) sum of 2^m over the molecules m in whose
    windows a bin lies; `edge_index` (2, E) source and target; `edge_type` (E,) places in `EDGE_TYPES`; `edge_features`
    (E, 4): wavelength of source minus target (asinh, in AIRS bin widths), molecules of both, 1 where the seam lies
    between them.

    Raises InputError if sizes disagree, an edge leaves the graph or ends where it starts, or one type has an edge
    twice.
    """

    position: Tensor
    molecules: Tensor
    edge_index: Tensor
    edge_type: Tensor
    edge_features: Tensor

    def __post_init__(self) -> None:
        edges = self.edge_type.shape[0]
        for name, shape in {
            "position": (N_WAVELENGTHS,),
            "molecules": (N_WAVELENGTHS,),
            "edge_index": (2, edges),
            "edge_features": (edges, len(EDGE_FEATURES)),
        }.items():
            self._require(tuple(getattr(self, name).shape) == shape, f"{name} of shape {shape}", getattr(self, name))
        source, target = self.edge_index
        outside = (self.edge_index < 0) | (self.edge_index >= N_WAVELENGTHS)
        self._require(not outside.any(), f"nodes 0 to {N_WAVELENGTHS - 1}", self.edge_index[outside])
        self._require(not (source == target).any(), "no self loops", source[source == target])
        typed = torch.stack([self.edge_type, source, target])
        self._require(typed.unique(dim=1).shape[1] == edges, "no edge twice", typed)

    def _require(self, holds: bool, expected: str, found: Tensor) -> None:
        if not holds:
            shown = f"shape {tuple(found.shape)}" if found.numel() > 8 else str(found.tolist())
            raise InputError("spectral graph", expected, shown, "Build it with spectral_graph().")

    @property
    def counts(self) -> dict[str, int]:
        """Edges of each type."""
        numbers = torch.bincount(self.edge_type, minlength=len(EDGE_TYPES)).tolist()
        return dict(zip(EDGE_TYPES, numbers, strict=True))

    def tensors(self) -> dict[str, Tensor]:
        return {item.name: getattr(self, item.name) for item in fields(self)}


def spectral_graph(wavelengths_um: Floats, windows: Windows, seam_index: int, options: GraphOptions) -> SpectralGraph:
    """The graph of the bins at `wavelengths_um` (283,).

    `windows` are inclusive ranges of AIRS bins by molecule, `seam_index` is the first bin beyond the seam. Raises
    InputError for wavelengths that are not 283 or do not ascend, and for windows or a seam outside the AIRS bins.
    """
    _check(wavelengths_um, windows, seam_index)
    bins = {molecule: bins_inside(ranges).tolist() for molecule, ranges in windows.items()}
    seam = seam_index if options.detector_seams else N_WAVELENGTHS
    pairs: dict[str, Pairs] = {name: [] for name in EDGE_TYPES}
    if options.wavelength_adjacency:
        pairs["adjacency"] = _adjacent(options.neighbours, seam)
    if options.molecular_links:
        pairs["molecule"] = sorted({pair for members in bins.values() for pair in _linked(members, options.neighbours)})
    if options.detector_seams:
        mirrored = [(seam - 1 - k, seam + k) for k in range(options.seam_reach)]
        pairs["seam"] = [(i, j) for i, j in mirrored if i >= 1 and j < N_WAVELENGTHS]
    if options.cross_instrument:
        pairs["instrument"] = [(0, j) for j in range(1, N_WAVELENGTHS)]

    both_ways = [(i, j) for found in pairs.values() for a, b in found for i, j in ((a, b), (b, a))]
    source, target = np.array(both_ways, dtype=np.int64).reshape(-1, 2).T
    edge_type = np.repeat(np.arange(len(EDGE_TYPES)), [2 * len(found) for found in pairs.values()])
    molecules = np.zeros(N_WAVELENGTHS, dtype=np.int64)
    for number, members in enumerate(bins.values()):
        molecules[sorted(set(members))] += 2**number
    log_wavelength = np.log(wavelengths_um)
    difference = np.arcsinh((wavelengths_um[source] - wavelengths_um[target]) / np.median(np.diff(wavelengths_um[1:])))
    beyond = np.arange(N_WAVELENGTHS) >= seam_index
    crosses = (beyond[source] != beyond[target]) & (source > 0) & (target > 0)
    features = np.stack([difference, molecules[source], molecules[target], crosses], axis=1)
    return SpectralGraph(
        position=_float((log_wavelength - log_wavelength[0]) / (log_wavelength[-1] - log_wavelength[0])),
        molecules=torch.from_numpy(molecules),
        edge_index=torch.from_numpy(np.stack([source, target])),
        edge_type=torch.from_numpy(edge_type),
        edge_features=_float(features),
    )


def _adjacent(reach: int, seam: int) -> Pairs:
    """AIRS bins at most `reach` apart, without those on either side of the seam."""
    near = [(i, i + k) for k in range(1, reach + 1) for i in range(1, N_WAVELENGTHS - k)]
    return [(i, j) for i, j in near if not i < seam <= j]


def _linked(members: list[int], neighbours: int) -> Pairs:
    """Bins whose places in the list are 1, 2, 4, ... apart, without those that are neighbours already."""
    distances = [2**k for k in range(len(members).bit_length())]
    found = [(i, j) for d in distances for i, j in zip(members, members[d:], strict=False)]
    return [(i, j) for i, j in found if j - i > neighbours]


def _check(wavelengths_um: Floats, windows: Windows, seam_index: int) -> None:
    cure = "Use the wavelengths.csv that came with the data set."
    where = "wavelengths of the spectral graph"
    if wavelengths_um.shape != (N_WAVELENGTHS,):
        raise InputError(where, f"{N_WAVELENGTHS} bins", f"shape {wavelengths_um.shape}", cure)
    if not (np.diff(wavelengths_um) > 0).all() or wavelengths_um[0] <= 0:
        raise InputError(where, "FGS1, then AIRS in ascending order", "wavelengths that do not ascend", cure)
    last_bin = N_WAVELENGTHS - 1
    for molecule, ranges in windows.items():
        edges = [edge for window in ranges for edge in window]
        if not all(1 <= first <= last <= last_bin for first, last in ranges) or edges != sorted(edges):
            raise InputError(
                f"windows of {molecule}", f"ascending ranges within bins 1 to {last_bin}", str(ranges), "Correct them."
            )
    if not 2 <= seam_index <= last_bin:
        raise InputError("seam index", f"a bin from 2 to {last_bin}", str(seam_index), "Correct it.")


def _float(values: Floats) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
