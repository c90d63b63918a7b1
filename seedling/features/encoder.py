"""Pretrained, frozen encoders: images or texts → features.

Any `AutoModel` for images or texts: a local folder, a model of the Hugging Face Hub (pinned by revision), or
all-MiniLM-L6-v2 from its own package. A row's features do not depend on the other rows or on the number of workers:
texts of equal length share a batch, so there is no padding; images come in batches of a fixed size, the last one
padded, because the CPU kernels depend on the batch size. Features are stored as float16.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from seedling.dataset.generation import Modality
from seedling.errors import InputError
from seedling.features.classical import raw_blocks
from seedling.features.encoder_handle import EncoderHandle
from seedling.features.normalization import normalize_rows
from seedling.features.pretrained import read_settings
from seedling.media import images
from seedling.media.images import View
from seedling.models.device import device_of, keep_freed_memory, use_one_thread
from seedling.parallel.executor import kept_threads, usable_cores

if TYPE_CHECKING:
    import torch

Features = NDArray[np.float32]  # (n, d)

MIN_WORD_LETTERS = 4  # shorter words are mostly function words
ONE_VIEW: tuple[View, ...] = ("whole",)
COLOR_COLUMNS = 48  # the last columns of an image's features: its color histogram
IMAGES_PER_BATCH = 16
TOKENS_PER_BATCH = 1_024
TEXTS_PER_BLOCK = 2_048  # texts in one sort by length


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder. `key` identifies the weights, the preprocessing and the precision, on which features depend."""

    key: str
    modality: Modality
    model: Any
    prepare: Any  # pixels → tensor, or transformers' tokenizer
    device: Any
    precision: str
    max_tokens: int
    pooling: str  # for texts: mean or cls

    def encode(
        self, payloads: Iterable[bytes | str], max_megapixels: float = 64.0, views: Sequence[View] = ONE_VIEW
    ) -> Iterator[Features]:
        """Yield features (≤ 2048, d) per block, in the order of the payloads, rounded to float16.

        payloads: encoded images or texts, all of the encoder's modality; views: of each image, see `embedding`.
        """
        keep_freed_memory()
        remaining, block_size = iter(payloads), rows_per_block(self.modality)
        threads = kept_threads(1 if self.device.type == "cuda" else usable_cores())
        while block := list(islice(remaining, block_size)):
            if self.modality == "image":
                yield self._images(block, max_megapixels, threads, views)
            else:
                yield self._texts([str(text) for text in block], threads)

    def prepared(self, payloads: Sequence[Any]) -> list[Any]:
        """Return rows as `batch` takes them: images unchanged, texts as token ids."""
        if self.modality == "image":
            return list(payloads)
        texts = [str(payload) for payload in payloads]
        encoded = self.prepare(texts, truncation=True, max_length=self.max_tokens)
        unknown = [self.prepare.unk_token_id or 0]  # for texts without tokens
        return [token_ids or unknown for token_ids in encoded["input_ids"]]

    def batch(self, rows: Sequence[Any], max_megapixels: float = 64.0) -> dict[str, torch.Tensor]:
        """Return the model inputs of these rows, which may differ in length; see `prepared`."""
        import torch

        if self.modality == "image":
            pixels = [row if isinstance(row, np.ndarray) else images.decode(row, max_megapixels) for row in rows]
            return {"pixel_values": self._on_device(self.prepare(pixels))}
        longest = max(len(token_ids) for token_ids in rows)
        padded = [token_ids + [0] * (longest - len(token_ids)) for token_ids in rows]
        masks = [[1] * len(token_ids) + [0] * (longest - len(token_ids)) for token_ids in rows]
        model_inputs = {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(masks)}
        return {name: tensor.to(self.device) for name, tensor in model_inputs.items()}

    def embedded(self, model_inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(n, d) for the result of `batch`, with gradients if they are enabled."""
        return self.embedding(self.model, model_inputs)

    def near_words(self, words: Iterable[str], max_per_word: int, min_cosine: float) -> dict[str, list[str]]:
        """Return words with similar input vectors, nearest first, for words that are a single token.

        max_per_word: maximum number per word; min_cosine: minimum cosine similarity, after the mean of all vectors is
        subtracted. Words with fewer than four letters or several tokens are left out. Empty for an image encoder.
        """
        if self.modality == "image":
            return {}
        vocabulary = self.prepare.get_vocab()
        whole_words = sorted(
            word for word in vocabulary if word.isalpha() and word.islower() and len(word) >= MIN_WORD_LETTERS
        )
        weights = self.model.get_input_embeddings().weight.detach().cpu().float().numpy()
        vectors = weights[[vocabulary[word] for word in whole_words]]
        vectors -= vectors.mean(axis=0)
        vectors = normalize_rows(vectors)
        row_of_word = {word: row for row, word in enumerate(whole_words)}
        queries = sorted({word for word in words if word in row_of_word})
        neighbors: dict[str, list[str]] = {}
        for first in range(0, len(queries), 256):
            block = queries[first : first + 256]
            rows = [row_of_word[word] for word in block]
            cosines = vectors[rows] @ vectors.T
            cosines[np.arange(len(rows)), rows] = -1
            best = np.argsort(-cosines, axis=1, kind="stable")[:, :max_per_word]
            for row, word in enumerate(block):
                near = [whole_words[neighbor] for neighbor in best[row] if cosines[row, neighbor] >= min_cosine]
                neighbors |= {word: near} if near else {}
        return neighbors

    def _images(
        self, block: Sequence[Any], max_megapixels: float, threads: ThreadPoolExecutor, views: Sequence[View]
    ) -> Features:
        def encode_batch(batch: Sequence[bytes]) -> Features:
            pixels = [images.decode(image, max_megapixels) for image in batch]
            padded = pixels + [pixels[-1]] * (IMAGES_PER_BATCH - len(pixels))
            embeddings = self._forward({"pixel_values": self.prepare(padded, views)})[: len(pixels)]
            return np.concatenate([embeddings, colors(pixels)], axis=1)

        batches = [block[first : first + IMAGES_PER_BATCH] for first in range(0, len(block), IMAGES_PER_BATCH)]
        return np.concatenate(list(threads.map(encode_batch, batches)))

    def _texts(self, block: list[str], threads: ThreadPoolExecutor) -> Features:
        import torch

        tokens = self.prepared(block)
        order = sorted(range(len(tokens)), key=lambda row: (len(tokens[row]), row))
        batches: list[list[int]] = []
        for length, rows in groupby(order, key=lambda row: len(tokens[row])):
            same_length, batch_size = list(rows), max(1, TOKENS_PER_BATCH // max(1, length))
            batches += [same_length[first : first + batch_size] for first in range(0, len(same_length), batch_size)]

        def encode_batch(rows: list[int]) -> Features:
            ids = torch.tensor([tokens[row] for row in rows])
            return self._forward({"input_ids": ids, "attention_mask": torch.ones_like(ids)})

        # Longest first, so that the workers finish at the same time.
        embeddings = np.concatenate(list(threads.map(encode_batch, batches[::-1])))
        result = np.empty_like(embeddings)
        result[[row for batch in batches[::-1] for row in batch]] = embeddings
        return result

    def _forward(self, model_inputs: dict[str, torch.Tensor]) -> Features:
        import torch

        use_one_thread(self.device)
        n_rows = len(next(iter(model_inputs.values())))
        try:
            with torch.inference_mode():
                on_device = {name: self._on_device(tensor) for name, tensor in model_inputs.items()}
                pooled = self.embedding(self.model, on_device).float()
        except torch.OutOfMemoryError:
            if n_rows == 1:
                raise InputError(
                    "A single row does not fit into the device's memory. Choose a smaller `encoder` in params.yaml."
                ) from None
            halves = [
                dict(zip(model_inputs, parts, strict=True))
                for parts in zip(*(tensor.chunk(2) for tensor in model_inputs.values()), strict=True)
            ]
            return np.concatenate([self._forward(half) for half in halves])
        return np.asarray(pooled.cpu().numpy().astype(np.float16), dtype=np.float32)

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        import torch

        moved = tensor.to(self.device)
        if moved.is_floating_point():
            moved = moved.to(getattr(torch, self.precision))
        return moved.contiguous(memory_format=torch.channels_last) if moved.ndim == 4 else moved

    def embedding(self, model: Any, model_inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(n, d): the pooled output of the model; of several views of an image, the mean of them, each of length 1.

        model_inputs: by name; pixel_values: (n, 3, height, width), or (n, views, 3, height, width).
        """
        import torch

        images_of_rows = model_inputs.get("pixel_values")
        if images_of_rows is None or images_of_rows.ndim == 4:
            return self._pooled(model(**model_inputs), model_inputs.get("attention_mask"))
        views = [view.contiguous(memory_format=torch.channels_last) for view in images_of_rows.unbind(dim=1)]
        embeddings = [unit_rows(self._pooled(model(pixel_values=view)).float()) for view in views]
        total: torch.Tensor = sum(embeddings[1:], start=embeddings[0])
        return total / len(embeddings)

    def _pooled(self, output: Any, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """(n, d). Images: the pooler output, or else the mean over positions. Texts: mean or first token, of length 1.

        attention_mask: (n, tokens), 1 for tokens, 0 for padding; None if no row is padded.
        """
        import torch

        if self.modality == "image":
            pooled = getattr(output, "pooler_output", None)
            if pooled is None:
                last = output.last_hidden_state
                pooled = last.mean(dim=1) if last.ndim == 3 else last.mean(dim=(2, 3))
            flat: torch.Tensor = pooled.flatten(1)
            return flat
        tokens: torch.Tensor = output.last_hidden_state
        if self.pooling == "cls":
            pooled = tokens[:, 0]
        elif attention_mask is None:
            pooled = tokens.mean(dim=1)
        else:
            pooled = (tokens * attention_mask[..., None]).sum(dim=1) / attention_mask.sum(dim=1, keepdim=True)
        return torch.nn.functional.normalize(pooled.float(), dim=1)


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """Scale each row to length 1; rows of zeros stay zeros."""
    return rows / ((rows**2).sum(dim=1, keepdim=True) + 1e-18).sqrt().clamp(min=1e-9)


def rows_per_block(modality: Modality) -> int:
    """Return the number of rows that are encoded together."""
    return 256 if modality == "image" else TEXTS_PER_BLOCK


@dataclass(frozen=True)
class EncodePiece:
    """Encodes consecutive rows in any process, with that process's own copy of the encoder.

    handle: its workspace must have the same path in that process if the encoder is a folder in it. digest: of the
    encoder in this process; the other process must have the same. views: see `Encoder.encode`.
    """

    handle: EncoderHandle
    digest: str
    max_megapixels: float
    views: Sequence[View] = ONE_VIEW

    @property
    def piece_size(self) -> tuple[int, int]:
        """The rows per piece, and a number of which it is a multiple, so that batches equal those of one process."""
        rows = rows_per_block(self.handle.modality)
        return rows, IMAGES_PER_BATCH if self.handle.modality == "image" else rows

    def __call__(self, payloads: Sequence[bytes | str]) -> Features:
        """(n, d). Raises InputError if the encoder is missing or has another digest."""
        encoder = _own_encoder(self.handle, self.digest)
        return np.concatenate(list(encoder.encode(payloads, self.max_megapixels, self.views)))


@lru_cache(maxsize=1)
def _own_encoder(handle: EncoderHandle, digest: str) -> Encoder:
    if handle.digest != digest:
        raise InputError(
            f"The encoder '{handle.params.model}' of this worker differs from the encoder of the run. "
            "Use the same files, or the same path, for both."
        )
    return load_encoder(handle)


@dataclass(frozen=True)
class Preparation:
    """The image preprocessing of preprocessor_config.json, of one or several views of each image.

    A single view is the whole image, because the relevant object may be at its edge.
    """

    height: int
    width: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Preparation:
        """Read the file's values, with transformers' defaults for missing ones."""
        size: Any = config.get("crop_size") or config.get("size") or 224
        sides: dict[str, Any] = size if isinstance(size, dict) else {"height": size, "width": size}
        edge = sides.get("shortest_edge", 224)
        unnormalized = config.get("do_normalize", True) is False
        return cls(
            height=int(sides.get("height", edge)),
            width=int(sides.get("width", edge)),
            mean=(0.0,) * 3 if unnormalized else tuple(config.get("image_mean") or (0.5,) * 3),
            deviation=(1.0,) * 3 if unnormalized else tuple(config.get("image_std") or (0.5,) * 3),
        )

    def __call__(self, pixels: Sequence[images.Pixels], views: Sequence[View] = ONE_VIEW) -> torch.Tensor:
        """(n, 3, height, width), float32; with several views (n, views, 3, height, width)."""
        import torch

        of_rows = np.stack(
            [[images.view_of(image, view, self.width, self.height) for view in views] for image in pixels]
        )
        mean, deviation = np.array(self.mean, np.float32), np.array(self.deviation, np.float32)
        values = torch.from_numpy((of_rows.astype(np.float32) / 255 - mean) / deviation).permute(0, 1, 4, 2, 3)
        return values[:, 0] if len(views) == 1 else values


def colors(pixels: Sequence[images.Pixels]) -> Features:
    """Return square roots of LAB histograms (n, 48).

    Encoders are trained to ignore color, but it helps with few labels.
    """
    small = [cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA) for image in pixels]
    return raw_blocks(np.stack(small))[2].astype(np.float16).astype(np.float32)


def load_encoder(handle: EncoderHandle) -> Encoder:
    """Load the encoder of the handle onto the available device.

    Raises InputError if there is no such folder, no weights or no network, or if the modality or `sha256` does not
    match.
    """
    folder, digest = handle.folder, handle.digest
    try:
        return _load(folder, handle.modality, handle.params.precision, digest)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"Cannot load an encoder from {folder} ({type(error).__name__}: {error}). "
            "Set `encoder` in params.yaml to another model."
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
    folder_name = str(folder)
    if modality == "image":
        prepare: Any = Preparation.of(read_settings(folder / "preprocessor_config.json"))
        fuse_batch_norms(model)
        model = model.to(memory_format=torch.channels_last)
        max_tokens = 0
    else:
        prepare = AutoTokenizer.from_pretrained(folder_name, local_files_only=True, trust_remote_code=False)
        max_seq_length = read_settings(folder / "sentence_bert_config.json").get("max_seq_length")
        max_tokens = int(max_seq_length or min(int(prepare.model_max_length), 512))
    cls = bool(read_settings(folder / "1_Pooling" / "config.json").get("pooling_mode_cls_token"))
    return Encoder(
        key=key,
        modality=modality,
        model=model.to(device=device, dtype=getattr(torch, precision)),
        prepare=prepare,
        device=device,
        precision=precision,
        max_tokens=max_tokens,
        pooling="cls" if cls else "mean",
    )


def fuse_batch_norms(model: Any) -> int:
    """Fold each batch normalization that directly follows a convolution into it; return the number of folded layers.

    The order of layers is read from a module's children, which its `forward` may not follow. The model is therefore
    left unchanged unless it gives the same output for a random image.
    """
    import torch
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    generator = torch.Generator().manual_seed(0)
    image = torch.rand((1, int(getattr(model.config, "num_channels", 3)), 64, 64), generator=generator)
    fused: list[tuple[Any, str, Any, str, Any]] = []
    with torch.no_grad(), suppress(ValueError, RuntimeError, TypeError):
        expected = model(pixel_values=image).last_hidden_state
        for layer in list(model.modules()):
            children = list(layer.named_children())
            for (first, convolution), (second, norm) in pairwise(children):
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    fused.append((layer, first, convolution, second, norm))
                    setattr(layer, first, fuse_conv_bn_eval(convolution, norm))
                    setattr(layer, second, nn.Identity())
        actual = model(pixel_values=image).last_hidden_state
        if torch.allclose(expected, actual, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
            return len(fused)
    for layer, first, convolution, second, norm in fused:
        setattr(layer, first, convolution)
        setattr(layer, second, norm)
    return 0
