"""`seedling export --model`: the accepted model as ONNX, with its classes, its preprocessing and its card in one folder."""

from __future__ import annotations

import ast
import importlib.util
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from seedling.dataset.generation import MANIFEST, payloads, read, write_json
from seedling.errors import InputError, SeedlingError
from seedling.features.encoded_features import EncodedFeatures
from seedling.media import images
from seedling.models.model import single_threaded
from seedling.models.portable import Portable
from seedling.models.predictor import Predictor
from seedling.models.saving import terms_of
from seedling.progress import Progress, terminal
from seedling.report.cards import model_card
from seedling.terminal.console import PrintableConsole

NEEDED = ("onnx", "onnxscript", "onnxruntime")
CHECKED = 64  # rows that the file is asked about before it is handed out
PREPROCESSING = "seedling_preprocessing"  # the package beside predict.py
MEDIA = "seedling.media"
MOST_BYTES = 1.9e9  # of an ONNX file
FAR = 1e-4  # between two probabilities
MOST_FAR = 0.02  # share of the checked rows: a support vector machine's vote can hang on the last digit
USE = """## How to ask it

`python predict.py {what}` writes CSV: each row's class, confidence, and whether the model had better abstain. It needs `pip install {packages}`, and nothing of Seedling.
From Python: `from predict import Model; Model().probabilities(rows)`. Other runtimes: `config.json` says what each of model.onnx's inputs holds."""


def export_model(workspace: Path, folder: Path, *, number: int | None, license_name: str) -> None:
    """Writes model.onnx, config.json, predict.py and README.md to `folder`, which is made, after asking both about the same rows.

    Raises InputError where something is in the folder, or `seedling-ml[onnx]` is not installed; SeedlingError where the two disagree.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: name another folder, or empty it.")
    missing = [package for package in NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(
            f"{', '.join(missing)} not installed: `pip install 'seedling-ml[onnx]'` brings what ONNX needs."
        )
    predictor = Predictor.of(workspace, number)
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        with terminal("export") as progress, single_threaded():
            farthest = _write(predictor, workspace, beside, license_name, progress)
        if folder.exists():
            folder.rmdir()
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    difference_shown = "" if farthest is None else f", probabilities at most {farthest:.0e} from the model's own"
    PrintableConsole().print(
        f"{folder}: round {predictor.round} as ONNX, {megabytes:.1f} MB{difference_shown}.",
        highlight=False,
        soft_wrap=True,
    )


def _write(predictor: Predictor, workspace: Path, folder: Path, license_name: str, progress: Progress) -> float | None:
    progress("write the graph", 0, 3)
    portable = Portable(predictor.model).eval()
    write_onnx(portable, _example(portable), folder / "model.onnx")
    progress("write the preprocessing", 1, 3)
    write_json(folder / "config.json", _config(predictor, portable))
    _write_preprocessing(portable, folder)
    progress("ask both", 2, 3)
    farthest = _checked(predictor, portable, workspace, folder / "model.onnx")
    image = predictor.modality == "image"
    packages = "onnxruntime numpy pillow opencv-python-headless" if image else "onnxruntime numpy scikit-learn"
    packages += " tokenizers" if "input_ids" in portable.inputs else ""
    use = USE.format(what="PICTURE..." if image else "< lines.txt", packages=packages)
    (folder / "README.md").write_text(
        model_card(workspace, workspace.name, license_name, use, predictor.round), encoding="utf-8"
    )
    return farthest


def _example(portable: Portable) -> tuple[Any, ...]:
    gray = images.encode(np.full((32, 32, 3), 128, np.uint8))
    return portable.prepared(["a text", "another text"] if "words" in portable.inputs else [gray, gray])


def write_onnx(portable: Portable, example: Sequence[Any], path: Path) -> None:
    """The graph of this module, with any number of rows and tokens; the same model gives the same bytes. Raises InputError for one that is too large
    for a file.
    """
    import onnx
    import torch

    bytes_of = sum(tensor.numel() * tensor.element_size() for tensor in (*portable.parameters(), *portable.buffers()))
    if bytes_of > MOST_BYTES:
        raise InputError(
            f"The model has {bytes_of / 1e9:.1f} GB of numbers, and one ONNX file holds {MOST_BYTES / 1e9:g}: name a smaller `encoder`, "
            "or leave `svm` and `nearest_neighbors` out of train.candidates, and train again."
        )
    free = torch.export.Dim.DYNAMIC
    axes: dict[str, dict[int, Any]] = {name: {0: free} for name in portable.inputs}
    axes |= {name: {0: free, 1: free} for name in ("input_ids", "attention_mask") if name in axes}
    with _quiet():
        program = torch.onnx.export(
            portable,
            tuple(example),
            dynamo=True,
            input_names=portable.inputs,
            output_names=["probabilities"],
            dynamic_shapes=(tuple(axes[name] for name in portable.inputs),),
            verbose=False,
        )
    onnx_model = program.model_proto  # type: ignore[union-attr]
    del onnx_model.metadata_props[:]
    for holder in (onnx_model.graph, *onnx_model.functions):  # where this machine keeps its files is nobody's business
        del holder.metadata_props[:]
        for node in holder.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (
        *onnx_model.graph.input,
        *onnx_model.graph.output,
        *onnx_model.graph.value_info,
        *onnx_model.graph.initializer,
    ):
        del value.metadata_props[:]
    onnx.save(onnx_model, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of what nobody asked for."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _config(predictor: Predictor, portable: Portable) -> dict[str, Any]:
    maker: Any = portable.maker
    inputs: dict[str, Any] = {}
    for name in portable.inputs:
        if name == "pixel_values":
            preparation = maker.encoder.prepare
            inputs[name] = {
                "height": preparation.height,
                "width": preparation.width,
                "mean": preparation.mean,
                "deviation": preparation.deviation,
                "is": "RGB / 255, less the mean, over the deviation; (n, 3, height, width)",
            }
        elif name in {"images", "small"}:
            side = 64 if isinstance(maker, EncodedFeatures) else maker.side if name == "images" else maker.network_side
            inputs[name] = {"side": side, "is": "the whole image as RGB, 0 to 255; (n, side, side, 3)"}
        elif name == "input_ids":
            tokenizer = maker.encoder.prepare
            inputs[name] = {
                "at_most": maker.encoder.max_tokens,
                "unknown": tokenizer.unk_token_id or 0,
                "is": "token numbers by tokenizer.json, filled up with 0; (n, tokens)",
            }
        elif name == "attention_mask":
            inputs[name] = {"is": "1 where a token is, 0 where a row was filled up; (n, tokens)"}
        else:
            inputs[name] = {"is": "TF-IDF by words.json, as predict.py counts it; (n, terms)"}
    return {
        "modality": predictor.modality,
        "classes": predictor.model.classes,
        "abstain_below": predictor.model.abstain_below,
        "max_megapixels": predictor.max_megapixels,
        "background": predictor.background,
        "round": predictor.round,
        "inputs": inputs,
    }


def _write_preprocessing(portable: Portable, folder: Path) -> None:
    maker: Any = portable.maker
    script = files("seedling.init").joinpath("workspace_files", "predict.py.template").read_text(encoding="utf-8")
    (folder / "predict.py").write_text(script, encoding="utf-8")
    used = "texts" if "words" in portable.inputs else "images"
    _copy_modules(used, folder / PREPROCESSING)
    if "words" in portable.inputs:
        encoded = isinstance(maker, EncodedFeatures)
        write_json(folder / "words.json", terms_of(maker.words if encoded else maker))
    if "input_ids" in portable.inputs:
        backend = getattr(maker.encoder.prepare, "backend_tokenizer", None)
        if backend is None:
            raise InputError(
                "The encoder's tokenizer is written in Python alone, and has no file that others could read."
            )
        (folder / "tokenizer.json").write_text(backend.to_str(pretty=True), encoding="utf-8")


def _copy_modules(name: str, folder: Path) -> None:
    """Copies this module of seedling.media, and those of that package that it imports, as a package that stands alone."""
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    waiting, copied = [name], set[str]()
    while waiting:
        module = waiting.pop()
        if module in copied:
            continue
        copied.add(module)
        source = files(MEDIA).joinpath(f"{module}.py").read_text(encoding="utf-8")
        renamed = source.replace(f"from {MEDIA}", f"from {folder.name}")
        (folder / f"{module}.py").write_text(renamed, encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module == MEDIA:
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{MEDIA}."):
                waiting.append(str(node.module).removeprefix(f"{MEDIA}."))


def _checked(predictor: Predictor, portable: Portable, workspace: Path, path: Path) -> float | None:
    """The largest difference between the file's and the model's probabilities on some rows, None where there is no row.

    Raises SeedlingError where they disagree on more of them than a vote's last digit explains.
    """
    import onnxruntime

    collected, validated = (workspace / "generations" / stage for stage in ("scrape", "validate"))
    ids = sorted(read(validated, ["id"])["id"])[:CHECKED] if (validated / MANIFEST).is_file() else []
    rows = [payload for _, payload in payloads([collected], ids)] if ids else []
    if not rows:
        return None
    session, expected = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]),
        predictor.model.predict(rows),
    )
    remaining, outputs = iter(rows), []
    for block in iter(partial(_block, remaining), []):
        arrays = portable.prepared(block, predictor.max_megapixels)
        named = {name: array.numpy() for name, array in zip(portable.inputs, arrays, strict=True)}
        outputs.append(session.run(None, named)[0])
    apart = np.abs(np.concatenate(outputs) - expected).max(axis=1)
    if (apart > FAR).mean() > MOST_FAR:
        raise SeedlingError(
            f"The ONNX file's probabilities differ from the model's by up to {apart.max():.3g} on {int((apart > FAR).sum())} of {len(apart)} rows: "
            "it is not handed out. Another version of torch or onnxruntime may do better (constraints.txt names those that were tried)."
        )
    return float(apart.max())


def _block(rows: Iterator[Any]) -> list[Any]:
    return list(islice(rows, 16))
