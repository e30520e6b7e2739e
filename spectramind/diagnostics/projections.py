"""Points of many dimensions in two or three, for the eye: neighbours are kept, distances between groups are not."""

from __future__ import annotations

import warnings

import numpy as np

from spectramind.types import Floats

FEWEST = 5
"""Points from which neighbours mean anything."""
KINDS = ("UMAP", "t-SNE")


def standardised(vectors: Floats, components: int = 32) -> Floats:
    """The leading principal components (points, at most `components`) of `vectors` (points, n), each column first
    brought to unit standard deviation; columns that do not vary are left out."""
    spread = vectors.std(axis=0)
    columns = vectors[:, spread > 0]
    scaled = (columns - columns.mean(axis=0)) / spread[spread > 0]
    left, values, _ = np.linalg.svd(scaled, full_matrices=False)
    projected: Floats = left[:, :components] * values[:components]
    return projected


def project(vectors: Floats, kind: str, dimensions: int, seed: int) -> Floats:
    """`vectors` (points, n) as (points, `dimensions`) by "UMAP" (McInnes et al. 2018, arXiv:1802.03426) or "t-SNE" (van
    der Maaten & Hinton 2008, JMLR 9, 2579). The same seed gives the same points.

    Raises ValueError for fewer than five points or another kind.
    """
    points = len(vectors)
    if points < FEWEST or kind not in KINDS:
        raise ValueError(f"{kind} of {points} points: needs one of {', '.join(KINDS)} and at least {FEWEST} points")
    prepared = standardised(vectors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both libraries warn of the single thread that a seed asks for
        if kind == "UMAP":
            from umap import UMAP

            neighbours = min(15, points - 1)
            start = "spectral" if points > 3 * dimensions + 4 else "random"
            reducer = UMAP(n_components=dimensions, n_neighbors=neighbours, init=start, random_state=seed, n_jobs=1)
            found = reducer.fit_transform(prepared)
        else:
            from sklearn.manifold import TSNE

            perplexity = min(30.0, (points - 1) / 3)
            found = TSNE(dimensions, perplexity=perplexity, init="pca", random_state=seed).fit_transform(
                prepared if prepared.shape[1] >= dimensions else np.pad(prepared, ((0, 0), (0, dimensions)))
            )
    return np.asarray(found, dtype=float)
