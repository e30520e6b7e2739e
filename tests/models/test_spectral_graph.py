"""Edges of each type, their features, and graphs that are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_network import SEAM, WAVELENGTHS, WINDOWS, graph

from spectramind.errors import InputError
from spectramind.models.options import GraphOptions
from spectramind.models.spectral_graph import EDGE_TYPES, spectral_graph


def edges(kind: str) -> set[tuple[int, int]]:
    g = graph()
    return {tuple(pair) for pair in g.edge_index.T[g.edge_type == EDGE_TYPES.index(kind)].tolist()}


def test_counts_of_each_type() -> None:
    """Adjacency: 281 + 280 pairs less the three across the seam. Molecules have 77, 57 and 54 bins; pairs at places
    1, 2, 4, ... apart, less those that are at most two bins apart."""

    def linked(*windows: int) -> int:
        n = sum(windows)
        far = sum(n - 2**k for k in range(2, 7) if n > 2**k)
        return far + (1 if len(windows) > 1 else 0) * (1 + 2)

    molecule = linked(46, 31) + linked(36, 21) + linked(41, 13)
    assert graph().counts == {
        "adjacency": 2 * (281 + 280 - 3),
        "molecule": 2 * molecule,
        "seam": 2 * 4,
        "instrument": 2 * 282,
    }


def test_every_edge_has_its_reverse() -> None:
    for kind in EDGE_TYPES:
        assert edges(kind) == {(j, i) for i, j in edges(kind)}


def test_types_link_what_they_say() -> None:
    members = {m: {b for first, last in ranges for b in range(first, last + 1)} for m, ranges in WINDOWS.items()}
    assert all(any({i, j} <= bins for bins in members.values()) for i, j in edges("molecule"))
    assert all(0 in pair for pair in edges("instrument"))
    assert not any(0 in pair for kind in ("adjacency", "molecule", "seam") for pair in edges(kind))
    assert all((i < SEAM) != (j < SEAM) and i + j == 2 * SEAM - 1 for i, j in edges("seam"))
    assert all(abs(i - j) <= 2 and (i < SEAM) == (j < SEAM) for i, j in edges("adjacency"))


def test_bins_of_a_molecule_are_a_few_edges_apart() -> None:
    reached, links = {40}, edges("molecule") | edges("adjacency")
    for _ in range(6):
        reached |= {j for i, j in links if i in reached}
    assert set(range(40, 86)) | set(range(210, 241)) <= reached


def test_edge_features() -> None:
    g = graph()
    source, target = g.edge_index
    width = np.median(np.diff(WAVELENGTHS[1:]))
    difference = torch.from_numpy((WAVELENGTHS[source] - WAVELENGTHS[target]) / width)
    torch.testing.assert_close(g.edge_features[:, 0].sinh().double(), difference, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(g.edge_features[:, 1], g.molecules[source].float())
    torch.testing.assert_close(g.edge_features[:, 2], g.molecules[target].float())
    assert g.edge_features[:, 3].bool().tolist() == [
        i > 0 and j > 0 and (i < SEAM) != (j < SEAM) for i, j in g.edge_index.T.tolist()
    ]
    assert (g.molecules[0], g.molecules[40], g.molecules[95], g.molecules[282]) == (0, 1, 2, 4)


def test_windows_of_two_molecules_may_overlap() -> None:
    g = spectral_graph(WAVELENGTHS, {"h2o": ((10, 30),), "co2": ((20, 40),)}, SEAM, GraphOptions())
    assert g.molecules[[9, 15, 25, 35, 41]].tolist() == [0, 1, 3, 2, 0]


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("wavelength_adjacency", "adjacency"),
        ("molecular_links", "molecule"),
        ("detector_seams", "seam"),
        ("cross_instrument", "instrument"),
    ],
)
def test_each_type_can_be_left_out(option: str, kind: str) -> None:
    counts = spectral_graph(WAVELENGTHS, WINDOWS, SEAM, replace(GraphOptions(), **{option: False})).counts
    assert [name for name, count in counts.items() if count == 0] == [kind]


@pytest.mark.parametrize(
    ("wavelengths", "windows", "seam", "problem"),
    [
        (WAVELENGTHS[:-1], WINDOWS, SEAM, "283 bins"),
        (WAVELENGTHS[::-1], WINDOWS, SEAM, "ascending"),
        (np.r_[WAVELENGTHS[1:], 0.7], WINDOWS, SEAM, "ascending"),
        (np.full(283, np.nan), WINDOWS, SEAM, "ascending"),
        (WAVELENGTHS, {"h2o": ((270, 283),)}, SEAM, "bins 1 to 282"),
        (WAVELENGTHS, {"h2o": ((0, 5),)}, SEAM, "bins 1 to 282"),
        (WAVELENGTHS, {"h2o": ((50, 60), (20, 30))}, SEAM, "ascending ranges"),
        (WAVELENGTHS, WINDOWS, 1, "a bin from 2"),
        (WAVELENGTHS, WINDOWS, 283, "a bin from 2"),
    ],
)
def test_unusable_wavelengths_windows_and_seams_are_refused(wavelengths, windows, seam, problem) -> None:
    with pytest.raises(InputError, match=problem):
        spectral_graph(wavelengths, windows, seam, GraphOptions())


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("edge_features", lambda t: t[:, :3], "edge_features of shape"),
        ("edge_features", lambda t: t[1:], "edge_features of shape"),
        ("edge_index", lambda t: t.index_fill(1, torch.tensor([5]), 7), "no self loops"),
        ("edge_index", lambda t: t + 1, "nodes 0 to 282"),
        ("edge_index", lambda t: t[:, torch.arange(t.shape[1]).clamp(min=1)], "no edge twice"),
        ("position", lambda t: t[1:], "position of shape"),
    ],
)
def test_broken_graphs_are_refused(name, change, problem) -> None:
    g = graph()
    with pytest.raises(InputError, match=problem):
        replace(g, **{name: change(getattr(g, name))})
