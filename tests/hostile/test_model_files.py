"""A model file from a stranger runs no code, whatever it holds; what is not a model is refused with exit code 2."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from in_process import seedling
from safetensors.numpy import load_file, save_file
from scipy import sparse
from small_models import grown

from seedling.errors import DamagedFile, SeedlingError
from seedling.features.classical import Inputs
from seedling.models.saving import load_learner, make_learner, save_learner
from seedling.models.training import FitContext

WRITES = "import pathlib; pathlib.Path({mark!r}).write_text('ran')"
FIT_CONTEXT = FitContext(3, seed=1, steps=10)
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(60, 5)).astype(np.float32)
TARGETS = np.eye(3)[np.arange(60) % 3]
IMAGES = RNG.integers(0, 255, (60, 16, 16, 3)).astype(np.uint8)
NAMES = ["logistic_regression", "svm", "random_forest", "nearest_neighbors", "boosted_trees", "network"]


class _Runs:
    """Pickled, it runs text when it is loaded."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (self.text,)


def _archive_of_objects(mark: Path) -> bytes:
    """A skops archive whose root calls a function of NumPy that executes text; its types all begin with `numpy.`."""
    text = {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": json.dumps(f"open({str(mark)!r}, 'w').write('ran')"),
        "is_json": True,
        "__id__": 3,
    }
    empty = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "__id__": 5, "content": []}
    names = {
        "__class__": "dict",
        "__module__": "builtins",
        "__loader__": "DictNode",
        "__id__": 4,
        "content": {},
        "key_types": empty,
    }
    arguments = {
        "__class__": "tuple",
        "__module__": "builtins",
        "__loader__": "TupleNode",
        "__id__": 2,
        "content": [text, names],
    }
    call = {
        "__class__": "runstring",
        "__module__": "numpy.testing._private.utils",
        "__loader__": "ConstructorFromReduceNode",
        "__id__": 1,
        "content": arguments,
    }
    plan = {**call, "protocol": 2, "_skops_version": "0.16.0"}
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("schema.json", json.dumps(plan))
    return held.getvalue()


def _pickled_array(mark: Path) -> bytes:
    held = io.BytesIO()
    np.savez(held, weights=np.array([_Runs(WRITES.format(mark=str(mark)))], dtype=object))
    return held.getvalue()


ATTACKS: dict[str, Callable[[Path], bytes]] = {
    "an archive of objects": _archive_of_objects,
    "a pickle": lambda mark: pickle.dumps(_Runs(WRITES.format(mark=str(mark)))),
    "NumPy's archive with a pickled array": _pickled_array,
    "an archive of torch": lambda mark: _torch_archive(mark),
    "nothing": lambda mark: b"",
    "a header of 2**60 bytes": lambda mark: (2**60).to_bytes(8, "little") + b"{}",
    "an array that reaches beyond the file": lambda mark: _with_header(
        {"weights": {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}}
    ),
}


def _torch_archive(mark: Path) -> bytes:
    import torch

    held = io.BytesIO()
    torch.save({"weights": _Runs(WRITES.format(mark=str(mark)))}, held)
    return held.getvalue()


def _with_header(header: object) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


def _fitted(name: str, folder: Path, as_sparse: bool = False) -> Path:
    learner = make_learner(name, FIT_CONTEXT)
    features = sparse.csr_matrix(ROWS) if as_sparse else ROWS
    learner.fit(Inputs(features, IMAGES), TARGETS, np.ones(60))
    save_learner(learner, folder / name)
    return folder / name


@pytest.mark.parametrize("suffix", [".safetensors", ".skops"])
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_runs_code_in_other_loaders_is_refused(name: str, attack: str, suffix: str, tmp_path: Path) -> None:
    """In the place of each learner's file; whatever suffix it has."""
    mark = tmp_path / "ran"
    path = tmp_path / "models" / name
    path.parent.mkdir()
    path.with_suffix(suffix).write_bytes(ATTACKS[attack](mark))
    with pytest.raises(SeedlingError, match="seedling run"):
        load_learner(name, path, FIT_CONTEXT)
    assert not mark.exists()


def test_the_attacks_run_code_where_a_loader_trusts_them(tmp_path: Path) -> None:
    """So that the tests above cannot pass for a broken attack."""
    mark = tmp_path / "ran"
    pickle.loads(ATTACKS["a pickle"](mark))  # noqa: S301  (our own attack)
    assert mark.read_text() == "ran"


CHANGES: list[tuple[str, bool, str, Callable[[np.ndarray], np.ndarray]]] = [
    ("logistic_regression", False, "weights", lambda array: array.astype(np.int32)),
    ("logistic_regression", False, "weights", lambda array: array[:, :1]),
    ("logistic_regression", False, "weights", lambda array: np.full_like(array, np.nan)),
    ("logistic_regression", False, "classes", lambda array: array + 7),
    ("random_forest", False, "left", np.zeros_like),
    ("random_forest", False, "right", lambda array: array + 10**6),
    ("random_forest", False, "feature", lambda array: array - 10),
    ("random_forest", False, "tree_start", lambda array: array[::-1].copy()),
    ("random_forest", False, "share_node", lambda array: array + 10**6),
    ("random_forest", False, "share_class", lambda array: array - 9),
    ("boosted_trees", False, "left", lambda array: array - 1),
    ("boosted_trees", False, "baseline", lambda array: array[:1]),
    ("svm", False, "counts", lambda array: array * 2),
    ("svm", False, "coefficients", lambda array: array[:, :3]),
    ("svm", True, "indices", lambda array: array + 10**8),
    ("svm", True, "indptr", lambda array: array * 9),
    ("svm", True, "shape", lambda array: -array),
    ("nearest_neighbors", True, "indices", lambda array: array - 10**8),
    ("nearest_neighbors", False, "labels", lambda array: array[:, :1]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "as_sparse", "array", "change"), CHANGES)
def test_an_index_out_of_range_is_refused_before_compiled_code_follows_it(
    name: str, as_sparse: bool, array: str, change: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    """A well-formed file of arrays that do not fit one another."""
    path = _fitted(name, tmp_path, as_sparse)
    file = path.with_suffix(".safetensors")
    arrays = load_file(file)
    arrays[array] = np.ascontiguousarray(change(arrays[array]))
    save_file(arrays, file)
    with pytest.raises(DamagedFile, match="damaged"):
        load_learner(name, path, FIT_CONTEXT)


def _archive_command(workspace: Path, tmp_path: Path, command: str) -> list[str]:
    question = tmp_path / "question.txt"
    question.write_text("rain over the hills", encoding="utf-8")
    arguments = {
        "predict": ["predict", str(question)],
        "export": ["export", str(tmp_path / "exported"), "--model"],
        "api": ["api", "--port", "8765"],
    }
    return [*arguments[command], "-w", str(workspace)]


@pytest.mark.parametrize("command", ["predict", "export", "api"])
def test_a_command_refuses_a_strangers_model_with_exit_code_2(command: str, tmp_path: Path) -> None:
    """An archive of objects lies where the model's arrays, or an old version's archive, are expected."""
    workspace, mark = grown(tmp_path / "work", "text"), tmp_path / "ran"
    half = workspace / "models" / "0" / "half-0"
    (half / "lr.safetensors").unlink()
    (half / "lr.skops").write_bytes(_archive_of_objects(mark))
    ran = seedling(*_archive_command(workspace, tmp_path, command))
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "earlier version" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not mark.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("file", "../../../elsewhere/lr"),
        ("file", "/etc/lr"),
        ("learner", "os.system"),
        ("pool_halves", 10**9),
        ("temperature", 0),
    ],
)
def test_a_models_json_names_no_file_outside_its_folder(key: str, value: object, tmp_path: Path) -> None:
    """Nor an unknown learner, nor a number that would never end."""
    from seedling.models.model import load_model

    folder = grown(tmp_path, "text") / "models" / "0"
    shutil.copytree(folder / "half-0", tmp_path / "elsewhere")
    record = json.loads((folder / "model.json").read_text())
    record["members"][0][key] = value
    (folder / "model.json").write_text(json.dumps(record))
    with pytest.raises(DamagedFile, match=key):
        load_model(folder, folder.parents[1])
