"""The points of a sweep: caps, distinctness, one answer per seed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectramind.ablation.points import Axis, propose_point, select_points, space_size

SPACE = [Axis("a", ("1", "2", "3")), Axis("b", ("1", "2", "3")), Axis("c", ("x", "y")), Axis("d", ("1", "2", "3"))]

spaces = st.lists(st.integers(1, 4), max_size=4).map(
    lambda sizes: [Axis(f"k{n}", tuple(map(str, range(size)))) for n, size in enumerate(sizes)]
)


@given(spaces, st.sampled_from(["grid", "random"]), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_points_are_distinct_capped_of_the_space_and_the_same_for_a_seed(
    axes: list[Axis], strategy: str, limit: int, seed: int
) -> None:
    points = select_points(axes, strategy, limit, seed)  # type: ignore[arg-type]
    assert len(points) == len(set(points)) == min(limit, space_size(axes))
    assert all(choice in axis.choices for point in points for axis, choice in zip(axes, point, strict=True))
    assert points == select_points(axes, strategy, limit, seed)  # type: ignore[arg-type]


def test_a_grid_is_in_order_with_the_last_axis_fastest() -> None:
    axes = [Axis("a", ("1", "2")), Axis("b", ("x", "y", "z"))]
    points = select_points(axes, "grid", 6, 0)
    assert points == [("1", "x"), ("1", "y"), ("1", "z"), ("2", "x"), ("2", "y"), ("2", "z")]


def test_a_grid_beyond_the_cap_still_varies_every_axis() -> None:
    points = select_points(SPACE, "grid", 32, 7)
    assert len(points) == 32
    assert points == sorted(points)
    assert all({point[n] for point in points} == set(axis.choices) for n, axis in enumerate(SPACE))
    assert set(points) != set(select_points(SPACE, "random", 32, 8))


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_proposals_visit_a_small_space_once_each_and_then_end(seed: int) -> None:
    axes = [Axis("a", ("1", "2")), Axis("b", ("x", "y", "z"))]
    history: dict[tuple[str, ...], float | None] = {}
    while (point := propose_point(axes, history, seed)) is not None:
        assert point == propose_point(axes, history, seed)
        assert point not in history
        history[point] = None if len(history) == 2 else float(len(history))
    assert len(history) == 6


def test_proposals_learn_where_the_loss_is_small() -> None:
    axes = [Axis(name, tuple("012345")) for name in "abcd"]
    history: dict[tuple[str, ...], float | None] = {}
    for _ in range(40):
        point = propose_point(axes, history, 3)
        assert point is not None
        history[point] = float(sum(map(int, point)))
    losses = [loss for loss in history.values() if loss is not None]
    assert sum(losses[-10:]) / 10 < 6 < sum(losses[:10]) / 10
    assert sum(losses[:10]) / 10 == pytest.approx(10, abs=4)
