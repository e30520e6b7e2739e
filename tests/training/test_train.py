"""Training: it learns what can be learned, stops when told to, and goes on as if it had never been stopped."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_training import recipe, still_recipe, training_set

from spectramind.errors import BudgetReached, InputError
from spectramind.losses.options import SymbolicOptions
from spectramind.models.network_planets import network_spectra
from spectramind.models.v50 import V50
from spectramind.training.checkpoints import load_state
from spectramind.training.options import (
    AugmentationOptions,
    BatchOptions,
    EarlyStoppingOptions,
    EpochOptions,
    LoaderOptions,
    OptimizerOptions,
)
from spectramind.training.phases import Recipe
from spectramind.training.train import LAST, planet_weights, split_validation, train_network

RECIPES = {
    "adamw": recipe(),
    "sgd": recipe(OptimizerOptions("sgd", lr=1e-3)),
    "lookahead": recipe(OptimizerOptions(lr=1e-3, lookahead_steps=2)),
    "steps left out": recipe(augmentation=AugmentationOptions(time_dropout_prob=0.3)),
    "averaged weights": recipe(ema=0.8, keep=1),
    "validation within epochs": recipe(validation_steps=1, accumulate_steps=1, keep=1),
    "validation across epochs": recipe(validation_steps=4, accumulate_steps=1, keep=1),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Budget:
    """Time for so many batches."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __call__(self) -> bool:
        self.batches -= 1
        return self.batches < 0


def same(one: V50, other: V50) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def alike(one: V50, other: V50) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=1e-3, atol=2e-6) for a, b in pairs)


@pytest.mark.parametrize("name", RECIPES)
def test_a_training_stopped_again_and_again_ends_with_the_same_weights(name: str, tmp_path: Path) -> None:
    data, how = training_set(), RECIPES[name]
    whole = train_network(data, how, tmp_path / "whole", seed=5)
    for batches in (1, 5, 4, 6, 1000):
        try:
            trained = train_network(data, how, tmp_path / "parts", 5, out_of_time=Budget(batches))
        except BudgetReached:
            continue
    assert trained.finished
    assert same(trained.network, whole.network)
    assert trained.validated == whole.validated


def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=train_network, args=(training_set(), recipe(), tmp_path / "parts", 5)
    )
    process.start()
    while not (tmp_path / "parts" / "supervised" / LAST).exists():
        assert process.is_alive()
        time.sleep(0.002)
    process.kill()
    process.join()
    trained = train_network(training_set(), recipe(), tmp_path / "parts", 5)
    assert same(trained.network, train_network(training_set(), recipe(), tmp_path / "whole", 5).network)


def test_a_network_learns_what_its_inputs_tell(tmp_path: Path) -> None:
    data = training_set(24)
    patient = EarlyStoppingOptions(enable=False)
    how = recipe(OptimizerOptions(lr=1e-2), epochs=EpochOptions(0, 0, 25), accumulate_steps=1, early_stopping=patient)
    told: list[tuple[str, Mapping[str, float]]] = []
    trained = train_network(data, how, tmp_path, 5, on_epoch=lambda phase, numbers: told.append((phase, numbers)))
    assert [numbers["epoch"] for _, numbers in told] == list(range(25))
    assert trained.validated == pytest.approx(min(numbers["val/gll"] for _, numbers in told))
    rows = list(data.validation)
    mean, _ = network_spectra([trained.network], data.planets.part(rows), 8)
    before = (data.planets.mean.numpy()[rows] - data.truth[rows]).std()
    assert (mean - data.truth[rows]).std() < 0.5 * before


def test_all_phases_run_in_order(tmp_path: Path) -> None:
    phases: list[str] = []
    train_network(training_set(), recipe(), tmp_path, 5, on_epoch=lambda phase, _: phases.append(phase))
    assert phases == ["mae", "mae", "contrastive", *["supervised"] * 4]


def test_workers_change_nothing(tmp_path: Path) -> None:
    data, how = training_set(), recipe(loader=LoaderOptions(workers=2))
    with pytest.raises(BudgetReached):
        train_network(data, how, tmp_path / "workers", 5, out_of_time=Budget(6))
    trained = train_network(data, how, tmp_path / "workers", 5)
    assert same(trained.network, train_network(data, recipe(), tmp_path / "alone", 5).network)
    assert not multiprocessing.active_children()


def test_averaged_weights_are_validated_and_kept(tmp_path: Path) -> None:
    how = recipe(ema=0.9, validation_steps=1, accumulate_steps=1, keep=100, epochs=EpochOptions(0, 0, 2))
    trained = train_network(training_set(), how, tmp_path, 5)
    name, average = "network.mu.networks.fine.3.weight", torch.zeros(0)
    paths = sorted((tmp_path / "supervised").glob("best-*"), key=lambda path: int(path.stem.rpartition("=")[2]))
    for path in paths:
        state = load_state(path)
        now = state["current_model_state"][name]
        average = 0.9 * average + 0.1 * now if len(average) else now
        torch.testing.assert_close(state["state_dict"][name], average)
        assert path == paths[0] or not torch.equal(now, average)
        edges = "network.airs.edge_index"
        assert torch.equal(state["state_dict"][edges], state["current_model_state"][edges])
    kept = [load_state(path)["state_dict"][name] for path in paths]
    assert sum(torch.equal(trained.network.state_dict()[name.removeprefix("network.")], one) for one in kept) == 1


def test_validations_come_after_so_many_steps(tmp_path: Path) -> None:
    told: list[Mapping[str, float]] = []
    how = recipe(validation_steps=2, accumulate_steps=1, epochs=EpochOptions(0, 0, 4))
    train_network(training_set(), how, tmp_path / "often", 5, on_epoch=lambda _, numbers: told.append(numbers))
    assert [(n["epoch"], n["step"]) for n in told if "val/gll" in n] == [
        (0, 2),
        (1, 4),
        (1, 6),
        (2, 8),
        (3, 10),
        (3, 12),
    ]
    assert [n["epoch"] for n in told if "train/loss" in n] == [0, 1, 2, 3]
    rare = replace(how, train=replace(how.train, validation_steps=1000))
    told.clear()
    train_network(training_set(), rare, tmp_path / "rarely", 5, on_epoch=lambda _, numbers: told.append(numbers))
    assert [n["step"] for n in told if "val/gll" in n] == [12]
    with pytest.raises(BudgetReached):
        train_network(training_set(), rare, tmp_path / "not yet", 5, out_of_time=Budget(8))


def test_a_short_last_batch_can_be_left_out(tmp_path: Path) -> None:
    for planets, size, steps in ((8, 3, 2), (3, 4, 1)):
        told: list[Mapping[str, float]] = []
        options = {"validation_steps": 1, "accumulate_steps": 1, "epochs": EpochOptions(0, 0, 1)}
        how = recipe(batch=BatchOptions(size, drop_last=True), **options)
        data = replace(training_set(), train=tuple(range(planets)))
        train_network(
            data, how, tmp_path / str(planets), 5, on_epoch=lambda _, numbers, told=told: told.append(numbers)
        )
        assert [n["step"] for n in told if "step" in n] == list(range(1, steps + 1))


def test_arithmetic_follows_the_options(tmp_path: Path) -> None:
    options = {"epochs": EpochOptions(0, 0, 1), "device": "cpu"}
    half, brain, full = (
        train_network(training_set(), recipe(precision=precision, **options), tmp_path / precision, 5).network
        for precision in ("fp16", "bf16", "auto")
    )
    assert same(half, brain)
    assert not same(half, full)
    how = recipe(deterministic=True, cudnn_benchmark=True, **options)
    trained = train_network(training_set(), how, tmp_path / "flags", 5).network
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    assert same(trained, train_network(training_set(), recipe(**options), tmp_path / "none", 5).network)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark


def test_the_best_epochs_and_the_last_are_kept(tmp_path: Path) -> None:
    train_network(training_set(), recipe(keep=2), tmp_path, 5)
    kept = sorted(path.name for path in (tmp_path / "supervised").iterdir())
    assert len(kept) == 3
    assert LAST in kept


@pytest.mark.parametrize("steps", [None, 1])
def test_it_ends_early_once_validation_gains_no_more(steps: int | None, tmp_path: Path) -> None:
    data = training_set(hint=0.0)
    stopping = {"early_stopping": EarlyStoppingOptions(patience=2), "validation_steps": steps}
    how = recipe(OptimizerOptions(lr=3e-2), epochs=EpochOptions(0, 0, 60), accumulate_steps=1, **stopping)
    trained = train_network(data, how, tmp_path, 5)
    assert trained.epochs < 60
    told: list[Mapping[str, float]] = []
    again = train_network(data, how, tmp_path, 5, on_epoch=lambda _, numbers: told.append(numbers))
    assert told == []
    assert again.epochs == trained.epochs
    assert same(again.network, trained.network)


def test_when_the_time_is_up_the_best_epoch_so_far_counts(tmp_path: Path) -> None:
    data, how = training_set(), recipe(epochs=EpochOptions(0, 0, 50))
    with pytest.raises(BudgetReached):
        train_network(data, how, tmp_path, 5, out_of_time=lambda: True)
    trained = train_network(data, how, tmp_path, 5, out_of_time=Budget(8))
    assert not trained.finished
    assert trained.epochs == 2


def test_a_kill_after_the_best_epoch_was_replaced_does_no_harm(tmp_path: Path) -> None:
    data, better_and_better = training_set(24), OptimizerOptions(lr=1e-2)
    how = recipe(better_and_better, epochs=EpochOptions(0, 0, 3), accumulate_steps=1, keep=1)
    whole = train_network(data, how, tmp_path / "whole", 5)

    class Killed(Exception):
        pass

    def kill(_: str, numbers: Mapping[str, float]) -> None:
        """Between the checkpoint of the best epoch and that of the latest."""
        if numbers["epoch"] == 1:
            raise Killed

    with pytest.raises(Killed):
        train_network(data, how, tmp_path / "parts", 5, on_epoch=kill)
    (best,) = (tmp_path / "parts" / "supervised").glob("best-*")
    assert best.name.startswith("best-epoch=1-")
    with pytest.raises(BudgetReached):
        train_network(data, how, tmp_path / "parts", 5, out_of_time=lambda: True)
    assert same(train_network(data, how, tmp_path / "parts", 5).network, whole.network)


def test_a_rule_changes_what_is_learned(tmp_path: Path) -> None:
    data, how = training_set(), recipe(epochs=EpochOptions(0, 0, 2))
    plain = train_network(data, how, tmp_path / "plain", 5)
    ruled = Recipe(how.network, how.train, how.optimizer, how.loss, SymbolicOptions())
    assert not same(train_network(data, ruled, tmp_path / "ruled", 5).network, plain.network)


def test_planets_whose_analytic_spectra_break_rules_weigh_more(tmp_path: Path) -> None:
    data, how = training_set(), still_recipe()
    data.planets.mean[3, 0] += 0.1  # FGS1 and AIRS see the same planet
    equal, weighed = SymbolicOptions(), SymbolicOptions(retraining_strength=3.0)
    assert planet_weights(data, equal).tolist() == [1.0] * 12
    weights = planet_weights(data, weighed)
    assert weights[list(data.train)].mean() == pytest.approx(1.0)
    assert weights[3] == weights[list(data.train)].max() == pytest.approx(4 * weights.min())
    plain, other = (
        train_network(data, replace(how, symbolic=symbolic), tmp_path / str(place), 5).network
        for place, symbolic in enumerate((equal, weighed))
    )
    assert not same(plain, other)


def test_batches_added_up_are_one_large_batch(tmp_path: Path) -> None:
    data, how = training_set(), still_recipe()
    parts, whole = (
        train_network(
            replace(data, train=data.train[:8]),
            replace(how, train=replace(how.train, batch=BatchOptions(size), accumulate_steps=steps)),
            tmp_path / str(size),
            5,
        )
        for size, steps in ((4, 2), (8, 1))
    )
    assert alike(parts.network, whole.network)


TOGETHER = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from toy_training import still_recipe, training_set
from spectramind.training.train import train_network
torch.set_num_threads(1)
data, how = training_set(), still_recipe(accumulate_steps=1)
trained = train_network(replace(data, train=data.train[:8]), how, Path(sys.argv[2]), 5)
folder = Path(sys.argv[2]) / f"rank_{torch.distributed.get_rank()}"
folder.mkdir()
trained.network.save(folder)
"""


@pytest.mark.slow
def test_two_processes_train_one_network_together(tmp_path: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*launch, str(script), str(Path(__file__).parent), str(tmp_path)], check=True)
    one, other = (V50.load(tmp_path / f"rank_{rank}") for rank in (0, 1))
    assert same(one, other)
    data, how = training_set(), still_recipe(accumulate_steps=1, batch=BatchOptions(8))
    alone = train_network(replace(data, train=data.train[:8]), how, tmp_path / "alone", 5)
    assert alike(one, alone.network)


def test_validation_planets_are_not_trained_on() -> None:
    train, validation = split_validation(range(100, 120), 0.15, seed=1)
    assert len(validation) == 3
    assert set(train) | set(validation) == set(range(100, 120))
    assert not set(train) & set(validation)
    assert (train, validation) != split_validation(range(100, 120), 0.15, seed=2)
    with pytest.raises(InputError, match="at least 4"):
        split_validation(range(3), 0.15, seed=1)
