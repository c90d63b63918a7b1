"""Pretrained encoders, frozen: images or texts → features.

Any `AutoModel` of images or texts: a local folder, a model of the Hugging Face Hub (pinned by revision), or
all-MiniLM-L6-v2 out of its own package. A row's features do not depend on the rows beside it, nor on the number of
workers: texts of equal length share a batch, so nothing is padded; images come in batches of one size, the last one
filled up, as the processor's kernels are chosen by the size. Features are kept as float16.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from seedling.dataset.generation import Modality
from seedling.errors import InputError
from seedling.features.classical import raw_blocks
from seedling.features.encoder_handle import EncoderHandle
from seedling.features.pretrained import settings_of
from seedling.media import images
from seedling.models.device import device_of, keep_freed_memory, one_thread
from seedling.parallel.executor import kept_threads, usable_cores

Features = NDArray[np.float32]  # (n, d)

SHORTEST_WORD = 4  # letters: shorter ones mostly hold a sentence together
COLORS = 48  # the last columns of an image's features
IMAGES_AT_ONCE = 16
TOKENS_AT_ONCE = 1_024
TEXTS_AT_ONCE = 2_048  # texts that are sorted by length together


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder. `key` names the weights, the preprocessing and the precision: what features depend on."""

    key: str
    modality: Modality
    model: Any
    prepare: Any  # pixels → tensor, or transformers' tokenizer
    device: Any
    precision: str
    max_tokens: int
    pooling: str  # of texts: mean or cls

    def encode(self, payloads: Iterable[bytes | str], max_megapixels: float = 64.0) -> Iterator[Features]:
        """(≤ 2048, d) a block, in the payloads' order; float16's precision.

        payloads: encoded images or texts, all of the encoder's modality.
        """
        keep_freed_memory()
        remaining, at_once = iter(payloads), rows_at_once(self.modality)
        threads = kept_threads(1 if self.device.type == "cuda" else usable_cores())
        while block := list(islice(remaining, at_once)):
            if self.modality == "image":
                yield self._images(block, max_megapixels, threads)
            else:
                yield self._texts([str(one) for one in block], threads)

    def prepared(self, payloads: Sequence[Any]) -> list[Any]:
        """Rows as `batch` takes them: images as they are, texts as token numbers."""
        if self.modality == "image":
            return list(payloads)
        tokens = self.prepare([str(one) for one in payloads], truncation=True, max_length=self.max_tokens)["input_ids"]
        return [one or [self.prepare.unk_token_id or 0] for one in tokens]  # a tokenizer may leave nothing

    def batch(self, rows: Sequence[Any], max_megapixels: float = 64.0) -> dict[str, Any]:
        """What the model is called with for these rows, which may be of any length; see `prepared`."""
        import torch

        if self.modality == "image":
            pixels = [one if isinstance(one, np.ndarray) else images.decode(one, max_megapixels) for one in rows]
            return {"pixel_values": self._laid_out(self.prepare(pixels))}
        longest = max(len(one) for one in rows)
        padded = [one + [0] * (longest - len(one)) for one in rows]
        shown = [[1] * len(one) + [0] * (longest - len(one)) for one in rows]
        ready = {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(shown)}
        return {name: one.to(self.device) for name, one in ready.items()}

    def embedded(self, ready: dict[str, Any]) -> Any:
        """(n, d) for what `batch` gave, with gradients where they are wanted."""
        return self._pooled(self.model(**ready), ready.get("attention_mask"))

    def near_words(self, words: Iterable[str], most: int, least: float) -> dict[str, list[str]]:
        """Of those words that the tokenizer keeps whole: other whole words whose input vectors lie near, the nearest first.

        most: so many of each at most; least: their cosine similarity, once the mean of all vectors is taken off. Words of one or more than one token
        that are shorter than four letters are left out. Empty for an encoder without words.
        """
        if self.modality == "image":
            return {}
        known = self.prepare.get_vocab()
        whole = sorted(word for word in known if word.isalpha() and word.islower() and len(word) >= SHORTEST_WORD)
        vectors = (
            self.model.get_input_embeddings().weight.detach().cpu().float().numpy()[[known[word] for word in whole]]
        )
        vectors -= vectors.mean(axis=0)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        place = {word: row for row, word in enumerate(whole)}
        asked = sorted({word for word in words if word in place})
        found: dict[str, list[str]] = {}
        for first in range(0, len(asked), 256):
            some = asked[first : first + 256]
            rows = [place[word] for word in some]
            close = vectors[rows] @ vectors.T
            close[np.arange(len(rows)), rows] = -1
            best = np.argsort(-close, axis=1, kind="stable")[:, :most]
            for row, word in enumerate(some):
                near = [whole[one] for one in best[row] if close[row, one] >= least]
                found |= {word: near} if near else {}
        return found

    def _images(self, block: Sequence[Any], max_megapixels: float, threads: ThreadPoolExecutor) -> Features:
        def one(batch: Sequence[bytes]) -> Features:
            pixels = [images.decode(image, max_megapixels) for image in batch]
            filled = pixels + [pixels[-1]] * (IMAGES_AT_ONCE - len(pixels))
            made = self._forward({"pixel_values": self.prepare(filled)})[: len(pixels)]
            return np.concatenate([made, colors(pixels)], axis=1)

        batches = [block[first : first + IMAGES_AT_ONCE] for first in range(0, len(block), IMAGES_AT_ONCE)]
        return np.concatenate(list(threads.map(one, batches)))

    def _texts(self, block: list[str], threads: ThreadPoolExecutor) -> Features:
        import torch

        tokens = self.prepared(block)
        order = sorted(range(len(tokens)), key=lambda row: (len(tokens[row]), row))
        batches: list[list[int]] = []
        for length, rows in groupby(order, key=lambda row: len(tokens[row])):
            same, many = list(rows), max(1, TOKENS_AT_ONCE // max(1, length))
            batches += [same[first : first + many] for first in range(0, len(same), many)]

        def one(rows: list[int]) -> Features:
            ids = torch.tensor([tokens[row] for row in rows])
            return self._forward({"input_ids": ids, "attention_mask": torch.ones_like(ids)})

        made = np.concatenate(list(threads.map(one, batches[::-1])))  # the longest first: the workers end together
        result = np.empty_like(made)
        result[[row for batch in batches[::-1] for row in batch]] = made
        return result

    def _forward(self, ready: dict[str, Any]) -> Features:
        import torch

        one_thread(self.device)
        many = len(next(iter(ready.values())))
        try:
            with torch.inference_mode():
                on_device = {name: self._laid_out(one) for name, one in ready.items()}
                pooled = self._pooled(self.model(**on_device)).float()
        except torch.OutOfMemoryError:
            if many == 1:
                raise InputError(
                    "One row alone is too large for the device's memory: choose a smaller `encoder` in params.yaml."
                ) from None
            halves = [
                dict(zip(ready, parts, strict=True))
                for parts in zip(*(one.chunk(2) for one in ready.values()), strict=True)
            ]
            return np.concatenate([self._forward(half) for half in halves])
        return np.asarray(pooled.cpu().numpy().astype(np.float16), dtype=np.float32)

    def _laid_out(self, one: Any) -> Any:
        import torch

        moved = one.to(self.device)
        if moved.is_floating_point():
            moved = moved.to(getattr(torch, self.precision))
        return moved.contiguous(memory_format=torch.channels_last) if moved.ndim == 4 else moved

    def _pooled(self, made: Any, shown: Any = None) -> Any:
        """(n, d): a network of images' pooled output, else the mean over places; texts: mean or first token, length 1.

        shown: (n, tokens), 1 where a token is, 0 where the row was filled up; None where no row was.
        """
        import torch

        if self.modality == "image":
            pooled = getattr(made, "pooler_output", None)
            if pooled is None:
                last = made.last_hidden_state
                pooled = last.mean(dim=1) if last.ndim == 3 else last.mean(dim=(2, 3))
            return pooled.flatten(1)
        tokens = made.last_hidden_state
        if self.pooling == "cls":
            pooled = tokens[:, 0]
        elif shown is None:
            pooled = tokens.mean(dim=1)
        else:
            pooled = (tokens * shown[..., None]).sum(dim=1) / shown.sum(dim=1, keepdim=True)
        return torch.nn.functional.normalize(pooled.float(), dim=1)


def rows_at_once(modality: Modality) -> int:
    """Rows that are encoded together."""
    return 256 if modality == "image" else TEXTS_AT_ONCE


@dataclass(frozen=True)
class EncodePiece:
    """Encodes consecutive rows in whichever process it is called, with that process's own copy of the encoder.

    handle: its workspace must have the same path there if the encoder is a folder in it.
    digest: of the encoder here, which must be the same there.
    """

    handle: EncoderHandle
    digest: str
    max_megapixels: float

    @property
    def piece_size(self) -> tuple[int, int]:
        """How many rows are a piece, and of what their number must be a multiple: batches are then those of one process."""
        rows = rows_at_once(self.handle.modality)
        return rows, IMAGES_AT_ONCE if self.handle.modality == "image" else rows

    def __call__(self, payloads: Sequence[bytes | str]) -> Features:
        """(n, d). Raises InputError where the encoder is not there, or another one."""
        encoder = _own_encoder(self.handle, self.digest)
        return np.concatenate(list(encoder.encode(payloads, self.max_megapixels)))


@lru_cache(maxsize=1)
def _own_encoder(handle: EncoderHandle, digest: str) -> Encoder:
    if handle.digest != digest:
        raise InputError(
            f"The encoder '{handle.params.model}' of this worker is not the one of the run: give both the same files, or the same path."
        )
    return load_encoder(handle)


@dataclass(frozen=True)
class Preparation:
    """Images as the encoder wants them, after its preprocessor_config.json, but for the crop: the whole frame is shown,
    since what a user's class is may stand at the edge.
    """

    height: int
    width: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Preparation:
        """From the file's values, with transformers' usual ones where it has none."""
        size: Any = config.get("crop_size") or config.get("size") or 224
        sides: dict[str, Any] = size if isinstance(size, dict) else {"height": size, "width": size}
        edge = sides.get("shortest_edge", 224)
        plain = config.get("do_normalize", True) is False
        return cls(
            height=int(sides.get("height", edge)),
            width=int(sides.get("width", edge)),
            mean=(0.0,) * 3 if plain else tuple(config.get("image_mean") or (0.5,) * 3),
            deviation=(1.0,) * 3 if plain else tuple(config.get("image_std") or (0.5,) * 3),
        )

    def __call__(self, pixels: Sequence[images.Pixels]) -> Any:
        """(n, 3, height, width), float32."""
        import torch

        resized = [images.resized(one, self.width, self.height) for one in pixels]
        values = (np.stack(resized).astype(np.float32) / 255 - np.array(self.mean, np.float32)) / np.array(
            self.deviation, np.float32
        )
        return torch.from_numpy(values).permute(0, 3, 1, 2)


def colors(pixels: Sequence[images.Pixels]) -> Features:
    """Square-rooted LAB histograms (n, 48): what encoders are taught to overlook, and few labels need."""
    small = [cv2.resize(one, (64, 64), interpolation=cv2.INTER_AREA) for one in pixels]
    return raw_blocks(np.stack(small))[2].astype(np.float16).astype(np.float32)


def load_encoder(handle: EncoderHandle) -> Encoder:
    """The encoder of the handle, on the device that there is.

    Raises InputError: no such folder, no weights, another modality, other weights than `sha256` says, no network.
    """
    folder, digest = handle.folder, handle.digest
    try:
        return _load(folder, handle.modality, handle.params.precision, digest)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{folder} gives no encoder: {type(error).__name__}: {error}. Name another as `encoder` in params.yaml."
        ) from error


def _load(folder: Path, modality: Modality, precision: str, key: str) -> Encoder:
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = device_of()
    model = (
        AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=False, use_safetensors=True)
        .eval()
        .requires_grad_(requires_grad=False)
    )
    place = str(folder)
    if modality == "image":
        prepare: Any = Preparation.of(settings_of(folder / "preprocessor_config.json"))
        fuse_batch_norms(model)
        model = model.to(memory_format=torch.channels_last)
        longest = 0
    else:
        prepare = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        said = settings_of(folder / "sentence_bert_config.json").get("max_seq_length")
        longest = int(said or min(int(prepare.model_max_length), 512))
    cls = bool(settings_of(folder / "1_Pooling" / "config.json").get("pooling_mode_cls_token"))
    return Encoder(
        key=key,
        modality=modality,
        model=model.to(device=device, dtype=getattr(torch, precision)),
        prepare=prepare,
        device=device,
        precision=precision,
        max_tokens=longest,
        pooling="cls" if cls else "mean",
    )


def fuse_batch_norms(model: Any) -> int:
    """Folds each batch normalization that directly follows its convolution into it; gives how many.

    Which follows which is read from a layer's children, so a layer whose `forward` goes another way would change its
    function: the caller's model is left as it was unless it gives the same output for a random image.
    """
    import torch
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    draw = torch.Generator().manual_seed(0)
    image = torch.rand((1, int(getattr(model.config, "num_channels", 3)), 64, 64), generator=draw)
    before: list[tuple[Any, str, Any, str, Any]] = []
    with torch.no_grad(), suppress(ValueError, RuntimeError, TypeError):
        expected = model(pixel_values=image).last_hidden_state
        for layer in list(model.modules()):
            children = list(layer.named_children())
            for (first, convolution), (second, norm) in pairwise(children):
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    before.append((layer, first, convolution, second, norm))
                    setattr(layer, first, fuse_conv_bn_eval(convolution, norm))
                    setattr(layer, second, nn.Identity())
        found = model(pixel_values=image).last_hidden_state
        if torch.allclose(expected, found, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
            return len(before)
    for layer, first, convolution, second, norm in before:
        setattr(layer, first, convolution)
        setattr(layer, second, norm)
    return 0
