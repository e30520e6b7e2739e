"""The leaderboard: its laws, and what chance cannot do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectramind.ablation.leaderboard import (
    BETTER,
    SAME,
    WEIGHTS,
    WORSE,
    Candidate,
    Row,
    composite_scores,
    leaderboard,
    pareto_front,
)
from spectramind.errors import InputError
from spectramind.metrics.score import official_score_2025, reference_of

TRUTH = np.random.default_rng(1).lognormal(-4.3, 0.6, (40, 1)) * np.ones((40, 283))

ROW = Row("row", 1, 40, 0.5, 0.4, 0.6, -7.0, 90.0, 60.0, 0.0, 0.0, 0.01, 0.1, None, 10.0)


def candidate(
    name: str, error: float, sigma: float, seconds: float | None = 1.0, seed: int = 0, seeds: int = 1
) -> Candidate:
    """Predictions whose errors are normal with standard deviation `error`, while `sigma` is stated."""
    shape = (seeds, *TRUTH.shape)
    noise = np.random.default_rng(seed).normal(0.0, error, shape)
    return Candidate(name, np.maximum(TRUTH + noise, 0.0), np.full(shape, sigma), seconds)


GOOD, SAME_AS_GOOD, BAD = (
    candidate("good", 1e-4, 1e-4),
    candidate("same", 1e-4, 1e-4, seed=1),
    candidate("bad", 1e-3, 1e-3),
)

CANDIDATES = (GOOD, SAME_AS_GOOD, BAD, candidate("slow", 3e-4, 3e-4, 9.0))

rows = st.lists(
    st.builds(
        lambda score, nll, gap, z, seconds: replace(
            ROW, score=score, nll=nll, calibration_gap=gap, z_error=z, seconds=seconds
        ),
        *(st.floats(0, 1), st.floats(-8, 0), st.floats(0, 0.5), st.floats(0, 2), st.floats(1, 100)),
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(len(CANDIDATES))))
def test_the_order_of_the_runs_does_not_matter(order: list[int]) -> None:
    assert leaderboard([CANDIDATES[place] for place in order], TRUTH) == leaderboard(CANDIDATES, TRUTH)


def test_a_clearly_better_configuration_wins() -> None:
    board = leaderboard([BAD, GOOD], TRUTH)
    assert board.winner == "good"
    assert [row.name for row in board.rows] == ["good", "bad"]
    assert board.rows[1].verdict == WORSE
    assert board.rows[0].score == official_score_2025(GOOD.mean[0], GOOD.sigma[0], TRUTH, *reference_of(TRUTH))


def test_a_difference_within_noise_cannot_win() -> None:
    board = leaderboard([GOOD, SAME_AS_GOOD, BAD], TRUTH)
    assert board.winner is None
    assert board.rivals == (board.rows[1].name,)
    assert board.rows[1].verdict == SAME
    assert board.rows[1].difference_low < 0 < board.rows[1].difference_high


def test_a_fast_configuration_of_a_worse_score_cannot_win() -> None:
    slow = replace(GOOD, name="slow", seconds=1e4)
    alike = replace(candidate("fast", 1.04e-4, 1.04e-4, seed=2), seconds=1.0)
    board = leaderboard([slow, alike, candidate("worst", 5e-3, 5e-3, 1.0)], TRUTH)
    assert board.rows[0].name == "fast"
    assert board.rows[1].verdict == BETTER
    assert board.winner is None


def test_seeds_are_averaged_and_their_luck_is_part_of_the_limits() -> None:
    factors = np.array([0.6, 1.0, 1.8])[:, None, None]
    base = candidate("base", 1e-4, 1e-4, seeds=3)
    lucky = replace(base, name="lucky", mean=np.maximum(TRUTH + (base.mean - TRUTH) * factors, 0.0))
    board = leaderboard([base, lucky], TRUTH)
    assert {row.seeds for row in board.rows} == {3}
    one_seed = leaderboard([replace(c, mean=c.mean[:1], sigma=c.sigma[:1]) for c in (base, lucky)], TRUTH)
    assert one_seed.winner == "lucky"
    assert board.winner is None


@given(rows)
def test_the_composite_is_the_weighted_badness_of_the_columns(found: list[Row]) -> None:
    composite = composite_scores(found)
    assert all(-1e-12 <= value <= 1 + 1e-12 for value in composite)
    expected = np.zeros(len(found))
    for name, sign in (("score", -1.0), ("nll", 1.0), ("calibration_gap", 1.0), ("seconds", 1.0)):
        column = sign * np.array([getattr(row, name) for row in found])
        low, high = column.min(), column.max()
        expected += WEIGHTS[name] * ((column - low) / (high - low) if high > low else 0.0)
    assert composite == pytest.approx(expected / 0.90)


def test_the_weights_are_the_documented_ones() -> None:
    assert list(WEIGHTS.values()) == [0.40, 0.25, 0.10, 0.15, 0.10]


def test_violations_count_where_they_are_known() -> None:
    clean, unphysical = replace(ROW, violations=0.0), replace(ROW, violations=2.0)
    assert composite_scores([clean, unphysical]) == pytest.approx([0.0, 0.10])
    assert composite_scores([clean, ROW]) == [0.0, 0.0]


@given(rows)
def test_no_row_of_the_front_is_beaten_and_every_other_is(found: list[Row]) -> None:
    front = pareto_front(found)
    assert any(front)
    for row, on_front in zip(found, front, strict=True):
        beaten = any(
            other.score >= row.score
            and other.calibration_gap <= row.calibration_gap
            and other.seconds <= row.seconds  # type: ignore[operator]
            and (other.score, other.calibration_gap, other.seconds) != (row.score, row.calibration_gap, row.seconds)
            for other in found
        )
        assert on_front != beaten


def test_ties_go_to_the_shorter_training_only_after_z_error_and_mae() -> None:
    slow, fast = replace(GOOD, name="a", seconds=None), replace(GOOD, name="b", seconds=2.0)
    board = leaderboard([slow, fast], TRUTH)
    assert [row.name for row in board.rows] == ["b", "a"]
    assert board.winner is None


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="one or more"):
        leaderboard([], TRUTH)
    with pytest.raises(InputError, match="a name of its own"):
        leaderboard([GOOD, GOOD], TRUTH)
    with pytest.raises(InputError, match="seeds"):
        leaderboard([GOOD, candidate("two", 1e-4, 1e-4, seeds=2)], TRUTH)
