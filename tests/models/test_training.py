"""Training by gradients: resuming after a kill, pretraining, consistency, losses, class imbalance and label noise."""

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
    """Stands for a kill of the process between two steps."""


def fitted(setting: FitContext, rows: np.ndarray) -> Network:
    network = Network(setting)
    network.fit(inputs(rows), np.eye(10)[DIGITS.target[rows]], np.ones(len(rows)))
    return network


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    """After a kill at step 10 of 15, with a checkpoint after each step, weights and losses are those of an
    uninterrupted run.
    """
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


def test_a_truncated_checkpoint_is_ignored(tmp_path: Path) -> None:
    """It is not read, and training begins again."""
    kept = Checkpoint(tmp_path / "one")
    kept.write(7, {"a": torch.ones(3)})
    step_and_tensors = kept.read()
    assert step_and_tensors is not None and step_and_tensors[0] == 7
    path = tmp_path / "one.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert kept.read() is None


def test_each_epoch_uses_every_row_once() -> None:
    """Ten rows in batches of four: three steps per epoch, and the next epoch in another order."""
    passes = [torch.cat([batch_of_step(10, 4, 0, step) for step in steps]) for steps in ((0, 1, 2), (3, 4, 5))]
    assert [sorted(epoch.tolist()) for epoch in passes] == [list(range(10))] * 2
    assert passes[0].tolist() != passes[1].tolist()


def test_running_out_of_memory_splits_the_batch() -> None:
    """On a device that holds at most three rows, 12 rows are split into four parts, and the step is that of the whole
    batch.
    """
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


def test_a_loss_that_is_not_a_number_ends_the_training() -> None:
    """The error has the step, and the learner is excluded; another test covers that the other candidates are trained."""
    net = nn.Linear(1, 1)
    with pytest.raises(Diverged, match="The loss is not a finite number at step 1"):
        Loop(net, FitContext(1), 0.1, {}).run(lambda step, draw: iter([net.weight.sum() * torch.nan]), 3)


@pytest.mark.soak
def test_unlabeled_images_improve_the_network() -> None:
    """With five labels per digit, pretraining and consistency increase the accuracy by at least five points."""
    order = np.random.default_rng(0).permutation(len(IMAGES))
    test, pool = order[:300], order[300:1000]
    rows = np.concatenate([pool[DIGITS.target[pool] == digit][:5] for digit in range(10)])
    setting = FitContext(10, seed=0, steps=200)
    body = pretrain(IMAGES[pool], setting)

    def right(context: FitContext) -> float:
        return float((fitted(context, rows).logits(inputs(test)).argmax(axis=1) == DIGITS.target[test]).mean())

    assert right(setting.of_model(body=body, unlabeled=inputs(pool))) > right(setting) + 0.05


def test_adaptive_thresholds_match_a_hand_calculation() -> None:
    """One batch moves even shares by a tenth: limit 0.5 + 0.1 × (0.8 − 0.5) = 0.53, shares 0.506 and 0.494.

    So the threshold of class 0 is 0.53 and that of class 1 is 0.53 × 0.494 / 0.506 = 0.517; a row with 51 % for
    class 0 is below it.
    """
    thresholds = AdaptiveThresholds(2, torch.device("cpu"))
    predicted, sure = thresholds.select(torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.8, 0.2], [0.2, 0.8]]))
    assert predicted.tolist() == [0, 0, 1, 0, 1]
    assert sure.tolist() == [1, 1, 1, 1, 1]
    assert float(thresholds.state["limit"]) == pytest.approx(0.53)
    assert thresholds.state["shares"].tolist() == pytest.approx([0.506, 0.494])
    assert thresholds.select(torch.tensor([[0.51, 0.49]]))[1].tolist() == [0]


def test_randomly_transformed_images_are_valid_and_differ() -> None:
    """Same shape, values between -1 and 1, another image for each seed, and the same one for the same seed."""
    pixels = torch.from_numpy(IMAGES[:4]).permute(0, 3, 1, 2).float() / 127.5 - 1
    first, again, other = (
        randomly_transformed(pixels, torch.Generator().manual_seed(seed), strength=1.0) for seed in (0, 0, 1)
    )
    assert first.shape == pixels.shape and float(first.abs().max()) <= 1
    assert (first == again).all() and not torch.allclose(first, other)


def test_losses_match_a_hand_calculation() -> None:
    """A row with 80 % for the correct class has loss −log 0.8.

    The focal loss is this times 0.2²; the symmetric loss is half of it plus half of −0.2 log 1e-4.
    """
    logits, targets = torch.log(torch.tensor([[0.8, 0.2]])), torch.tensor([[1.0, 0.0]])
    entropy = -np.log(0.8)
    assert float(losses_of_rows("plain", logits, targets)) == pytest.approx(entropy, rel=1e-5)
    assert float(losses_of_rows("focal", logits, targets)) == pytest.approx(0.04 * entropy, rel=1e-4)
    expected = 0.5 * entropy + 0.5 * 0.2 * -np.log(1e-4)
    assert float(losses_of_rows("symmetric", logits, targets)) == pytest.approx(expected, rel=1e-4)


def test_balanced_weights_give_each_class_the_same_total() -> None:
    """Three rows of one class and one of the other have weights 4 / 2 / 3 and 4 / 2 / 1."""
    targets = np.eye(2)[[0, 0, 0, 1]]
    assert balanced(targets, np.ones(4)) == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])


def test_adjusted_logits_subtract_the_log_class_shares_and_load_equal(tmp_path: Path) -> None:
    """For shares 0.75 and 0.25, the rare class gains log 3 on the common one."""
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
