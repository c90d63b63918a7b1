"""`seedling export --model`: writes the accepted model as ONNX with its classes, preprocessing and card to a folder."""

from __future__ import annotations

import ast
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

from seedling.dataset.generation import payloads, read
from seedling.errors import InputError, SeedlingError
from seedling.export.model_config import model_config
from seedling.extras import require
from seedling.features.encoded_features import EncodedFeatures
from seedling.files.writing import write_json
from seedling.media import images
from seedling.models.model import single_threaded
from seedling.models.portable import Portable
from seedling.models.predictor import Predictor
from seedling.models.saving import terms_of
from seedling.progress import Progress, terminal
from seedling.report.cards import model_card
from seedling.terminal.console import PrintableConsole
from seedling.workspace import MANIFEST, Workspace

N_CHECKED_ROWS = 64  # predicted with the file before it is published
CHECK_BATCH_ROWS = 16
PREPROCESSING = "seedling_preprocessing"  # the package next to predict.py
MEDIA = "seedling.media"
MAX_FILE_BYTES = 1.9e9  # of an ONNX file
MAX_PROBABILITY_DIFFERENCE = 1e-4
MAX_DIFFERENT_SHARE = 0.02  # of the checked rows: a support vector machine's vote can depend on the last digit
USAGE = """## Usage

`python predict.py {arguments}` writes CSV: each row's class, confidence, and whether the model abstains.
It needs `pip install {packages}`, but not Seedling.
From Python: `from predict import Model; Model().probabilities(rows)`.
For other runtimes, `config.json` describes each input of model.onnx."""


def export_model(workspace: Path, folder: Path, *, number: int | None, license_name: str) -> None:
    """Writes model.onnx, config.json, predict.py and README.md to a new folder, and compares it with the model.

    Raises:
        InputError: the folder is not empty.
        MissingExtra: the extra `onnx` is not installed.
        SeedlingError: the predictions of the file differ from those of the model.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: choose another folder, or empty it.")
    require("onnx", "The ONNX export")
    predictor = Predictor.of(workspace, number)
    partial_folder = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir(parents=True)
    try:
        with terminal("export") as progress, single_threaded():
            max_difference = _write(predictor, workspace, partial_folder, license_name, progress)
        if folder.exists():
            folder.rmdir()
        partial_folder.replace(folder)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
    megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    difference_text = "" if max_difference is None else f", probabilities within {max_difference:.0e} of the model's"
    PrintableConsole().print(
        f"{folder}: round {predictor.round} as ONNX, {megabytes:.1f} MB{difference_text}.",
        highlight=False,
        soft_wrap=True,
    )


def _write(predictor: Predictor, workspace: Path, folder: Path, license_name: str, progress: Progress) -> float | None:
    progress("write the graph", 0, 3)
    portable = Portable(predictor.model).eval()
    write_onnx(portable, _example(portable), folder / "model.onnx")
    progress("write the preprocessing", 1, 3)
    write_json(folder / "config.json", model_config(predictor, portable).as_json())
    _write_preprocessing(portable, folder)
    progress("compare predictions", 2, 3)
    max_difference = _max_difference(predictor, portable, workspace, folder / "model.onnx")
    is_image = predictor.modality == "image"
    packages = "onnxruntime numpy pillow opencv-python-headless" if is_image else "onnxruntime numpy scikit-learn"
    packages += " tokenizers" if "input_ids" in portable.inputs else ""
    usage = USAGE.format(arguments="IMAGE..." if is_image else "< lines.txt", packages=packages)
    (folder / "README.md").write_text(
        model_card(workspace, workspace.name, license_name, usage, predictor.round), encoding="utf-8"
    )
    return max_difference


def _example(portable: Portable) -> tuple[Any, ...]:
    gray = images.encode(np.full((32, 32, 3), 128, np.uint8))
    return portable.prepared(["a text", "another text"] if "words" in portable.inputs else [gray, gray])


def write_onnx(portable: Portable, example: Sequence[Any], path: Path, *, max_bytes: float = MAX_FILE_BYTES) -> None:
    """Writes the module's graph, for any number of rows and tokens; the same model gives the same bytes.

    Raises InputError if the model is too large for a file.
    """
    import onnx
    import torch

    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in (*portable.parameters(), *portable.buffers()))
    if n_bytes > max_bytes:
        raise InputError(
            f"The model has {n_bytes / 1e9:.1f} GB of numbers, and an ONNX file holds {max_bytes / 1e9:g}: set a "
            "smaller `encoder`, or leave `svm` and `nearest_neighbors` out of train.candidates, and train again."
        )
    dynamic = torch.export.Dim.DYNAMIC
    axes: dict[str, dict[int, Any]] = {name: {0: dynamic} for name in portable.inputs}
    axes |= {name: {0: dynamic, 1: dynamic} for name in ("input_ids", "attention_mask") if name in axes}
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
    for holder in (onnx_model.graph, *onnx_model.functions):  # metadata has paths of this machine
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
    """Silences the exporter's warnings and logs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    previous_levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, previous_levels, strict=True):
            logger.setLevel(level)


def _write_preprocessing(portable: Portable, folder: Path) -> None:
    maker: Any = portable.maker
    script = files("seedling.init").joinpath("workspace_files", "predict.py.template").read_text(encoding="utf-8")
    (folder / "predict.py").write_text(script, encoding="utf-8")
    module = "texts" if "words" in portable.inputs else "images"
    _copy_modules(module, folder / PREPROCESSING)
    if "words" in portable.inputs:
        has_encoder = isinstance(maker, EncodedFeatures)
        write_json(folder / "words.json", terms_of(maker.words if has_encoder else maker).model_dump(mode="json"))
    if "input_ids" in portable.inputs:
        backend = getattr(maker.encoder.prepare, "backend_tokenizer", None)
        if backend is None:
            raise InputError(
                "The encoder's tokenizer has no tokenizer.json, which ONNX runtimes need: use an encoder with a fast "
                "tokenizer."
            )
        (folder / "tokenizer.json").write_text(backend.to_str(pretty=True), encoding="utf-8")


def _copy_modules(name: str, folder: Path) -> None:
    """Copies a module of seedling.media, and the modules of that package that it imports, as a package of their own."""
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    pending, copied = [name], set[str]()
    while pending:
        module = pending.pop()
        if module in copied:
            continue
        copied.add(module)
        source = files(MEDIA).joinpath(f"{module}.py").read_text(encoding="utf-8")
        renamed = source.replace(f"from {MEDIA}", f"from {folder.name}")
        (folder / f"{module}.py").write_text(renamed, encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module == MEDIA:
                pending += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{MEDIA}."):
                pending.append(str(node.module).removeprefix(f"{MEDIA}."))


def _max_difference(predictor: Predictor, portable: Portable, workspace: Path, path: Path) -> float | None:
    """Returns max |p_file - p_model| over some rows, or None if there are no rows.

    Raises SeedlingError if the difference exceeds MAX_PROBABILITY_DIFFERENCE on more than MAX_DIFFERENT_SHARE of the
    rows.
    """
    import onnxruntime

    collected, validated = (Workspace(workspace).generation(stage) for stage in ("scrape", "validate"))
    ids = sorted(read(validated, ["id"])["id"])[:N_CHECKED_ROWS] if (validated / MANIFEST).is_file() else []
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
        inputs = {name: array.numpy() for name, array in zip(portable.inputs, arrays, strict=True)}
        outputs.append(session.run(None, inputs)[0])
    differences = np.abs(np.concatenate(outputs) - expected).max(axis=1)
    is_different = differences > MAX_PROBABILITY_DIFFERENCE
    if is_different.mean() > MAX_DIFFERENT_SHARE:
        raise SeedlingError(
            f"The ONNX file's probabilities differ from the model's by up to {differences.max():.3g} on "
            f"{int(is_different.sum())} of {len(differences)} rows, so it was not exported. Install the versions of "
            "torch and onnxruntime in constraints.txt, and export again."
        )
    return float(differences.max())


def _block(rows: Iterator[Any]) -> list[Any]:
    return list(islice(rows, CHECK_BATCH_ROWS))
