"""What learns by gradients: resuming after a kill, pretraining, consistency, losses; imbalance and doubtful labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from seedling.errors import Diverged
from seedling.features.classical import Inputs
from seedling.models.losses import Adjusted, balanced, class_shares, losses_of_rows
from seedling.models.network import AdaptiveThresholds, Network, pretrain, randomly_transformed
from seedling.models.saving import load_learner, make_learner, save_learner
from seedling.models.training import Checkpoint, FitContext, Loop, batch_of_step

DIGITS = load_digits()
IMAGES = np.repeat((DIGITS.images * 15).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)[..., None], 3, axis=3)


def inputs(rows: np.ndarray) -> Inputs:
    return Inputs(np.zeros((len(rows), 1), np.float32), IMAGES[rows])


class Killed(Exception):
    """Stands for a kill: the process ends between two steps."""


def fitted(setting: FitContext, rows: np.ndarray) -> Network:
    network = Network(setting)
    network.fit(inputs(rows), np.eye(10)[DIGITS.target[rows]], np.ones(len(rows)))
    return network


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """Killed at step 10 of 15, with a checkpoint after each step: weights and losses are those of an undisturbed run."""
    rows, pool = np.arange(60), inputs(np.arange(100, 180))
    heard: dict[str, list[tuple[int, float]]] = {"whole": [], "killed": [], "resumed": []}

    def watch(name: str, last: int = 99) -> Callable[[int, float], None]:
        def hear(step: int, loss: float) -> None:
            heard[name].append((step, loss))
            if step == last:
                raise Killed

        return hear

    setting = FitContext(10, seed=3, steps=15, unlabeled=pool)
    whole = fitted(setting.of_model(watch=watch("whole")), rows)
    disturbed = setting.of_model(checkpoint=tmp_path / "network", seconds_between_checkpoints=-1.0)
    with pytest.raises(Killed):
        fitted(disturbed.of_model(watch=watch("killed", last=10)), rows)
    assert (tmp_path / "network.safetensors").is_file()
    resumed = fitted(disturbed.of_model(watch=watch("resumed")), rows)
    assert all((tensor == resumed.tensors()[name]).all() for name, tensor in whole.tensors().items())
    assert heard["resumed"] == heard["whole"]
    assert not list(tmp_path.iterdir()), "a checkpoint is cleared in the end"


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    """A file that is cut short is not read, and training begins anew."""
    kept = Checkpoint(tmp_path / "one")
    kept.write(7, {"a": torch.ones(3)})
    found = kept.read()
    assert found is not None and found[0] == 7
    path = tmp_path / "one.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert kept.read() is None


def test_each_pass_over_the_rows_takes_every_row_once() -> None:
    """Ten rows in batches of four: three steps a pass, and the next pass in another order."""
    passes = [torch.cat([batch_of_step(10, 4, 0, step) for step in steps]) for steps in ((0, 1, 2), (3, 4, 5))]
    assert [sorted(one.tolist()) for one in passes] == [list(range(10))] * 2
    assert passes[0].tolist() != passes[1].tolist()


def test_memory_that_runs_out_makes_smaller_parts_of_the_same_batch() -> None:
    """A device that takes three rows at most: 12 rows go in four parts, and the step is that of the whole batch."""
    x = torch.randn((12, 2), generator=torch.Generator().manual_seed(0))

    def trained(most: int) -> torch.Tensor:
        net = nn.Linear(2, 1)
        nn.init.ones_(net.weight)
        nn.init.zeros_(net.bias)
        loop = Loop(net, FitContext(1), 0.1, {})

        def loss_of(step: int, draw: torch.Generator) -> Iterator[torch.Tensor]:
            for part in x.chunk(loop.parts):
                if len(part) > most:
                    raise torch.OutOfMemoryError("no more")
                yield (net(part) ** 2).sum() / len(x)

        loop.run(loss_of, 2)
        return net.weight.detach().clone()

    assert torch.allclose(trained(3), trained(12), atol=1e-6)


def test_a_loss_that_is_no_number_ends_the_training_with_its_step() -> None:
    """The learner is left out; that the others go on is tested where candidates are tried."""
    net = nn.Linear(1, 1)
    with pytest.raises(Diverged, match="The loss is not a finite number at step 1"):
        Loop(net, FitContext(1), 0.1, {}).run(lambda step, draw: iter([net.weight.sum() * torch.nan]), 3)


@pytest.mark.slow
def test_pool_images_without_labels_make_the_network_better() -> None:
    """Five labels a digit: pretrained and with consistency it is right at least five points oftener than without."""
    order = np.random.default_rng(0).permutation(len(IMAGES))
    test, pool = order[:300], order[300:1000]
    rows = np.concatenate([pool[DIGITS.target[pool] == digit][:5] for digit in range(10)])
    setting = FitContext(10, seed=0, steps=200)
    body = pretrain(IMAGES[pool], setting)

    def right(one: FitContext) -> float:
        return float((fitted(one, rows).logits(inputs(test)).argmax(axis=1) == DIGITS.target[test]).mean())

    assert right(setting.of_model(body=body, unlabeled=inputs(pool))) > right(setting) + 0.05


def test_limits_by_hand() -> None:
    """From even shares, one batch moves them by a tenth: limit .5 + .1 × (.8 − .5) = .53, shares .506 and .494.

    So class 0 needs .53 and class 1 .53 × .494 / .506 = .517; a row that is 51 % sure of class 0 is not sure enough.
    """
    thresholds = AdaptiveThresholds(2, torch.device("cpu"))
    said, sure = thresholds.select(torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.8, 0.2], [0.2, 0.8]]))
    assert said.tolist() == [0, 0, 1, 0, 1]
    assert sure.tolist() == [1, 1, 1, 1, 1]
    assert float(thresholds.state["limit"]) == pytest.approx(0.53)
    assert thresholds.state["shares"].tolist() == pytest.approx([0.506, 0.494])
    assert thresholds.select(torch.tensor([[0.51, 0.49]]))[1].tolist() == [0]


def test_changed_images_stay_images_and_differ() -> None:
    """Same shape, between -1 and 1, another image each draw, the same one for the same draw."""
    shown = torch.from_numpy(IMAGES[:4]).permute(0, 3, 1, 2).float() / 127.5 - 1
    first, again, other = (
        randomly_transformed(shown, torch.Generator().manual_seed(seed), strength=1.0) for seed in (0, 0, 1)
    )
    assert first.shape == shown.shape and float(first.abs().max()) <= 1
    assert (first == again).all() and not torch.allclose(first, other)


def test_losses_by_hand() -> None:
    """Of a row that is 80 % sure of the right class: −log .8; focal × .2²; symmetric half of it and half of −.2 log 1e-4."""
    logits, wanted = torch.log(torch.tensor([[0.8, 0.2]])), torch.tensor([[1.0, 0.0]])
    entropy = -np.log(0.8)
    assert float(losses_of_rows("plain", logits, wanted)) == pytest.approx(entropy, rel=1e-5)
    assert float(losses_of_rows("focal", logits, wanted)) == pytest.approx(0.04 * entropy, rel=1e-4)
    expected = 0.5 * entropy + 0.5 * 0.2 * -np.log(1e-4)
    assert float(losses_of_rows("symmetric", logits, wanted)) == pytest.approx(expected, rel=1e-4)


def test_balanced_weights_let_each_class_count_alike() -> None:
    """Three rows of one class and one of the other: 4 / 2 / 3 and 4 / 2 / 1."""
    targets = np.eye(2)[[0, 0, 0, 1]]
    assert balanced(targets, np.ones(4)) == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])


def test_adjusted_logits_lose_the_log_of_the_classes_shares_and_come_back_from_disk(tmp_path: Path) -> None:
    """Shares .75 and .25: the rare class gains log 3 on the common one."""
    x = np.array([[0.0], [0.1], [0.2], [1.0]], np.float32)
    targets = np.eye(2)[[0, 0, 0, 1]]
    assert class_shares(targets, np.ones(4)) == pytest.approx([0.75, 0.25])
    plain = make_learner("logistic_regression", FitContext(2))
    plain.fit(Inputs(x), targets, np.ones(4))
    adjusted = Adjusted(plain, np.log(class_shares(targets, np.ones(4))))
    gained = adjusted.logits(Inputs(x)) - plain.logits(Inputs(x))
    assert gained[:, 1] - gained[:, 0] == pytest.approx(np.full(4, np.log(3)))
    save_learner(adjusted, tmp_path / "one")
    loaded = load_learner("logistic_regression", tmp_path / "one", FitContext(2))
    assert (loaded.logits(Inputs(x)) == adjusted.logits(Inputs(x))).all()
