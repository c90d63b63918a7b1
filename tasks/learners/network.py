"""A small convolutional network for small pictures, trained from scratch on soft labels and weights.

Three blocks of convolution, batch normalisation and ReLU, average pooling, one linear layer; AdamW under a one-cycle
learning rate (Smith 2018). One thread and a generator of its own, so that the same rows give the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tasks.errors import InputError
from tasks.learners.features import Inputs
from tasks.statistics import Floats

WIDTHS = (16, 32, 64)
BATCH = 64
PEAK_LEARNING_RATE = 4e-3


class Convolutions(nn.Module):
    """(n, 3, side, side) in [-1, 1] → (n, classes) logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in WIDTHS:
            layers += [
                nn.Conv2d(before, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            before = width
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(before, classes)

    def forward(self, pictures: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
        """Logits; `kept` is the dropout mask in training, drawn outside from the learner's own generator."""
        pooled = self.body(pictures).mean(dim=(2, 3))
        if kept is not None:
            pooled = pooled * kept
        logits: torch.Tensor = self.head(pooled)
        return logits


class Network:
    """The network as a learner: fit on weighted, soft-labelled rows, give logits."""

    name = "network"

    def __init__(self, seed: int, classes: int, steps: int, net: Convolutions | None = None) -> None:
        self.seed, self.classes, self.steps, self.net = seed, classes, steps, net

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,). Raises InputError for a loss that is no number."""
        torch.set_num_threads(1)  # of this thread: OpenMP keeps the number a thread
        draw = torch.Generator().manual_seed(self.seed % 2**63)
        self.net = Convolutions(self.classes)
        initialise(self.net, draw)
        pictures = as_tensor(inputs.pictures)
        wanted = torch.from_numpy(targets.astype(np.float32))
        row_weights = torch.from_numpy((weights / weights.mean()).astype(np.float32))
        optimiser = torch.optim.AdamW(self.net.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=1e-2)
        pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_LEARNING_RATE, total_steps=self.steps)
        self.net.train()
        for batch in islice(batches(len(wanted), draw), self.steps):
            kept = (torch.rand(len(batch), WIDTHS[-1], generator=draw) > 0.2) / 0.8
            logits = self.net(pictures[batch], kept)
            losses = nn.functional.cross_entropy(logits, wanted[batch], reduction="none")
            loss = (losses * row_weights[batch]).mean()
            if not torch.isfinite(loss):
                raise InputError(
                    "The network's loss is no number: leave `network` out of train.candidates in params.yaml."
                )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            pace.step()

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes)."""
        if self.net is None:
            raise InputError("The network was not trained.")
        torch.set_num_threads(1)
        self.net.eval()
        with torch.inference_mode():
            parts = [self.net(part) for part in as_tensor(inputs.pictures).split(512)]  # type: ignore[no-untyped-call]
        return torch.cat(parts).numpy().astype(np.float64)


def batches(rows: int, draw: torch.Generator) -> Iterator[torch.Tensor]:
    """Row numbers of one batch after the other, without end; each pass over the rows in an order of its own."""
    while True:
        for batch in torch.randperm(rows, generator=draw).tensor_split(-(-rows // BATCH)):
            if len(batch) > 1:  # one row alone has no batch statistics
                yield batch


def as_tensor(pictures: NDArray[np.uint8] | None) -> torch.Tensor:
    """(n, 3, side, side), -1 to 1, of (n, side, side, 3), 0 to 255."""
    if pictures is None:
        raise InputError("The network needs pictures: leave `network` out of train.candidates for texts.")
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def initialise(net: nn.Module, draw: torch.Generator) -> None:
    """He initialisation (2015) from the learner's own generator: torch's default would draw from the global one."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=draw)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
