"""A small dense detector: a head without anchors on the feature maps of a frozen convolutional model.

Each cell of the maps of stride 8, 16 and 32 predicts the distances from its center to the four sides of a box, and, per
class, the intersection over union (IoU) that this box has with an object of the class.

- Features: one 1 × 1 convolution per stride, added from the coarse map to the fine one (Lin et al. 2017, FPN).
- Assignment: an object is learned by the cells whose square prior has an IoU with it of at least the mean plus the
  standard deviation over its nearest cells, and whose center is inside it (Zhang et al. 2020, ATSS).
- Loss: varifocal for the classes, with the IoU of the predicted box as target (Zhang et al. 2021), and 1 − GIoU for the
  boxes, weighted by that IoU (Rezatofighi et al. 2019).
- Inference: of each class, boxes that overlap a box of higher score by more than 0.6 are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from seedling.boxes.feature_maps import STRIDES
from seedling.boxes.geometry import Boxes, as_boxes
from seedling.boxes.metrics import Detections
from seedling.models.device import use_one_thread

CHANNELS = 64
GROUPS = 8
TOWER_LAYERS = 2
PRIOR_STRIDES = 5.0  # side of a cell's square prior, in strides
NEAREST_CELLS = 9  # per stride, for the assignment
INITIAL_SCORE = 0.01  # so that the many cells without an object cost little in the first steps
VARIFOCAL_ALPHA, VARIFOCAL_GAMMA = 0.75, 2.0
BOX_LOSS_WEIGHT = 2.0
MIN_SCORE = 0.02
MAX_CANDIDATES, MAX_BOXES = 1_000, 100
MAX_OVERLAP = 0.6
PEAK_LEARNING_RATE, WEIGHT_DECAY = 3e-3, 0.02
AVERAGING = 0.99  # decay of the averaged weights
BATCH_IMAGES = 8


class DetectorHead(nn.Module):
    """Class scores and distances of every cell."""

    def __init__(self, channels: Sequence[int], n_classes: int, seed: int = 0) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, CHANNELS, 1) for count in channels)
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, CHANNELS) for _ in channels)
        self.class_tower, self.box_tower = _tower(), _tower()
        self.classes = nn.Conv2d(CHANNELS, n_classes, 3, padding=1)
        self.distances = nn.Conv2d(CHANNELS, 4, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(channels)))
        generator = torch.Generator().manual_seed(seed)  # threads share the global one
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_in), generator=generator)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.classes.bias, -math.log(1 / INITIAL_SCORE - 1))  # type: ignore[arg-type]
        nn.init.constant_(self.distances.bias, math.log(PRIOR_STRIDES / 2))  # type: ignore[arg-type]
        for layer in (self.classes, self.distances):
            nn.init.normal_(layer.weight, std=0.01, generator=generator)

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(n_images, n_cells, n_classes) logits, and (n_images, n_cells, 4) distances in pixels.

        The distances are to the left, top, right and bottom side.
        """
        merged: torch.Tensor | None = None
        logits: list[torch.Tensor] = []
        distances: list[torch.Tensor] = []
        for level in reversed(range(len(maps))):
            features = self.lateral[level](maps[level])
            if merged is not None:
                features = features + functional.interpolate(merged, size=features.shape[-2:], mode="nearest")
            merged = functional.silu(self.norms[level](features))
            of_boxes = self.distances(self.box_tower(merged)) * self.scales[level]
            logits.insert(0, _by_cell(self.classes(self.class_tower(merged))))
            distances.insert(0, _by_cell(of_boxes.clamp(max=8.0).exp() * STRIDES[level]))
        return torch.cat(logits, dim=1), torch.cat(distances, dim=1)


def _tower() -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(TOWER_LAYERS):
        layers += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.GroupNorm(GROUPS, CHANNELS), nn.SiLU()]
    return nn.Sequential(*layers)


def _by_cell(values: torch.Tensor) -> torch.Tensor:
    """(n_images, n_cells, n_values) of (n_images, n_values, height, width)."""
    return values.flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class Cells:
    """The cells of an image of a size. centers: (n_cells, 2) in pixels; strides: (n_cells,); counts: by stride."""

    centers: torch.Tensor
    strides: torch.Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, height: int, width: int) -> Cells:
        """height, width: in pixels, multiples of 32."""
        centers, strides = [], []
        for stride in STRIDES:
            rows, columns = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
            centers.append((torch.stack([columns, rows], dim=-1).reshape(-1, 2) + 0.5) * stride)
            strides.append(torch.full((len(centers[-1]),), float(stride)))
        return cls(torch.cat(centers), torch.cat(strides), tuple(map(len, centers)))

    def corners(self, distances: torch.Tensor) -> torch.Tensor:
        """(…, n_cells, 4): left, top, right and bottom of the boxes at these distances."""
        return torch.cat([self.centers - distances[..., :2], self.centers + distances[..., 2:]], dim=-1)


def assign(cells: Cells, corners: torch.Tensor) -> torch.Tensor:
    """(n_cells,): the object that each cell learns; -1 for none.

    corners: (n_objects, 4). A cell that fits several objects learns the one with the largest IoU.
    """
    if not len(corners):
        return torch.full((len(cells.strides),), -1)
    half = cells.strides[:, None] * PRIOR_STRIDES / 2
    priors = torch.cat([cells.centers - half, cells.centers + half], dim=1)
    overlaps = pairwise_iou(priors, corners)
    middles = (corners[:, :2] + corners[:, 2:]) / 2
    distances = torch.cdist(cells.centers, middles)
    nearest, start = [], 0
    for count in cells.counts:
        of_stride = distances[start : start + count].topk(min(NEAREST_CELLS, count), dim=0, largest=False).indices
        nearest.append(of_stride + start)
        start += count
    candidates = torch.cat(nearest)
    of_candidates = overlaps.gather(0, candidates)
    threshold = of_candidates.mean(dim=0) + of_candidates.std(dim=0)
    is_candidate = torch.zeros_like(overlaps, dtype=torch.bool).scatter_(0, candidates, of_candidates >= threshold)
    inside = torch.minimum(cells.centers[:, None] - corners[:, :2], corners[:, 2:] - cells.centers[:, None])
    is_positive = is_candidate & (inside.min(dim=-1).values > 0)
    fit = torch.where(is_positive, overlaps, torch.full_like(overlaps, -1.0))
    best = fit.max(dim=1)
    # The cell nearest to the middle of an object that no cell fits, such as one of a few pixels, learns it.
    result = torch.where(best.values >= 0, best.indices, torch.full_like(best.indices, -1))
    for number in range(corners.shape[0]):
        if not (result == number).any():
            result[distances[:, number].argmin()] = number
    return result


def pairwise_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(n_first, n_second): IoU of boxes as corners."""
    sides = torch.minimum(first[:, None, 2:], second[None, :, 2:]) - torch.maximum(
        first[:, None, :2], second[None, :, :2]
    )
    shared = sides.clamp(min=0).prod(dim=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=-1) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1][None] - shared).clamp(min=1e-9)


def generalized_iou(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n,) IoU and GIoU of pairs of boxes as corners."""
    shared = (torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])).clamp(min=0)
    hull = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    shared_area, hull_area = shared.prod(dim=-1), hull.prod(dim=-1).clamp(min=1e-9)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=-1) for boxes in (first, second)]
    union = areas[0] + areas[1] - shared_area
    iou = shared_area / union.clamp(min=1e-9)
    return iou, iou - (hull_area - union) / hull_area


@dataclass(frozen=True)
class Target:
    """What the cells of an image learn.

    objects: (n_cells,) from `assign`; corners: (n_objects, 4); classes: (n_objects,); is_ignored: (n_cells,) cells
    inside a crowd or a region that is not annotated, which learn nothing.
    """

    objects: torch.Tensor
    corners: torch.Tensor
    classes: torch.Tensor
    is_ignored: torch.Tensor


def loss(logits: torch.Tensor, distances: torch.Tensor, targets: Sequence[Target], cells: Cells) -> torch.Tensor:
    """The mean loss of a batch of images, per object."""
    predicted = cells.corners(distances)
    quality = torch.zeros_like(logits)
    box_losses, n_positive = [], 0.0
    weight = torch.full_like(logits, VARIFOCAL_ALPHA) * logits.detach().sigmoid() ** VARIFOCAL_GAMMA
    for number, target in enumerate(targets):
        positive = torch.nonzero(target.objects >= 0)[:, 0]
        weight[number, target.is_ignored] = 0.0
        if not len(positive):
            continue
        objects = target.objects[positive]
        iou, giou = generalized_iou(predicted[number, positive], target.corners[objects])
        learned = iou.detach().clamp(min=0.05)
        quality[number, positive, target.classes[objects]] = learned
        weight[number, positive, target.classes[objects]] = learned
        box_losses.append(((1 - giou) * learned).sum())
        n_positive += float(learned.sum())
    class_loss = functional.binary_cross_entropy_with_logits(logits, quality, weight, reduction="sum")
    total = class_loss + BOX_LOSS_WEIGHT * sum(box_losses)
    return total / max(1.0, n_positive)


@dataclass(frozen=True)
class CachedView:
    """The feature maps of one view of an image, and the boxes in it. maps: one (channels, height, width) per stride."""

    maps: list[torch.Tensor]
    boxes: Boxes
    classes: np.ndarray
    is_crowd: np.ndarray
    size: tuple[int, int]


def target_of(view: CachedView, cells: Cells) -> Target:
    """What the cells learn of a view; height and width of the view are those of the cells."""
    corners = torch.from_numpy(
        np.concatenate([view.boxes[:, :2], view.boxes[:, :2] + view.boxes[:, 2:]], axis=1)
    ).float()
    is_crowd = torch.from_numpy(view.is_crowd)
    crowds = corners[is_crowd]
    inside = torch.minimum(cells.centers[:, None] - crowds[:, :2], crowds[:, 2:] - cells.centers[:, None])
    is_ignored = (
        (inside.min(dim=-1).values > 0).any(dim=1) if len(crowds) else torch.zeros(len(cells.strides), dtype=torch.bool)
    )
    objects = assign(cells, corners[~is_crowd])
    return Target(objects, corners[~is_crowd], torch.from_numpy(view.classes)[~is_crowd], is_ignored & (objects < 0))


def train_head(
    views: Sequence[Sequence[CachedView]], channels: Sequence[int], n_classes: int, *, steps: int, seed: int
) -> DetectorHead:
    """Train a head. views: of each image, one or more; all of one size. Each epoch uses one view of each image."""
    use_one_thread(torch.device("cpu"))
    generator = np.random.default_rng(seed)
    head = DetectorHead(channels, n_classes, seed)
    cells = Cells.of(*views[0][0].size)
    targets = [[target_of(view, cells) for view in of_image] for of_image in views]
    optimizer = torch.optim.AdamW(head.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.1)
    averaged = {name: value.detach().clone() for name, value in head.state_dict().items()}
    batches = _batches(len(views), generator)
    for step in range(steps):
        chosen = [(image, int(generator.integers(len(views[image])))) for image in next(batches)]
        maps = [
            torch.stack([views[image][view].maps[level] for image, view in chosen]).float()
            for level in range(len(STRIDES))
        ]
        logits, distances = head(maps)
        value = loss(logits, distances, [targets[image][view] for image, view in chosen], cells)
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(head.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        decay = min(AVERAGING, (1 + step) / (10 + step))
        for name, weight in head.state_dict().items():
            averaged[name].lerp_(weight.detach(), 1 - decay)
    head.load_state_dict(averaged)
    head.eval()
    return head


def _batches(n_images: int, generator: np.random.Generator) -> Iterator[list[int]]:
    """Endless batches; each epoch has every image once, in a new order."""
    queue: list[int] = []
    while True:
        while len(queue) < BATCH_IMAGES:
            queue += generator.permutation(n_images).tolist()
        batch, queue = queue[:BATCH_IMAGES], queue[BATCH_IMAGES:]
        yield batch


def detect(head: DetectorHead, maps: Sequence[torch.Tensor], size: tuple[int, int]) -> list[Detections]:
    """The boxes of a batch of images, in pixels of the images that were encoded. size: their height and width."""
    with torch.inference_mode():
        logits, distances = head(list(maps))
        scores = logits.sigmoid().numpy()
        corners = Cells.of(*size).corners(distances).numpy()
    return [_suppressed(corners[number], scores[number], size) for number in range(len(scores))]


def _suppressed(corners: np.ndarray, scores: np.ndarray, size: tuple[int, int]) -> Detections:
    """The best boxes of an image, without those that overlap a better one of their class."""
    cells, classes = np.nonzero(scores > MIN_SCORE)
    values = scores[cells, classes]
    order = np.argsort(-values, kind="stable")[:MAX_CANDIDATES]
    cells, classes, values = cells[order], classes[order], values[order]
    boxes = np.clip(corners[cells], 0, [size[1], size[0], size[1], size[0]]).astype(np.float64)
    shifted = boxes + (classes * 2.0 * max(size))[:, None]  # boxes of different classes never overlap
    keep = _non_maximum_suppression(shifted)[:MAX_BOXES]
    kept = boxes[keep]
    return Detections(
        as_boxes(np.concatenate([kept[:, :2], kept[:, 2:] - kept[:, :2]], axis=1)),
        classes[keep],
        values[keep].astype(np.float64),
    )


def _non_maximum_suppression(corners: np.ndarray) -> np.ndarray:
    """The positions of boxes, in order, that no earlier kept box overlaps by more than MAX_OVERLAP."""
    tensor = torch.from_numpy(corners)
    overlaps = (pairwise_iou(tensor, tensor) > MAX_OVERLAP).numpy()
    is_kept = np.ones(len(corners), dtype=bool)
    for number in range(len(corners)):
        if is_kept[number]:
            is_kept[number + 1 :] &= ~overlaps[number, number + 1 :]
    return np.flatnonzero(is_kept)
