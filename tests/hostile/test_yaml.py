"""YAML that stands for more than any program should walk through: no command hangs on it, whichever file holds it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from in_process import seedling

from seedling.config.params import load, set_value
from seedling.errors import InputError, SeedlingError
from seedling.files.yaml_files import MAX_BYTES, parse_yaml
from seedling.init.create import make_workspace
from seedling.versioning import storage as dvc_storage
from seedling.versioning import yaml_limits as dvc_yaml
from seedling.versioning.ledger import Ledger


def bomb(mark: str = "a", layers: int = 12, key: str = "bomb") -> str:
    """Ten times as many values a layer: a thousand billion in a kilobyte. mark: what the anchors' names begin with."""
    lines = [f"{key}:", f"  {key}0: &{mark}0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"  {key}{layer}: &{mark}{layer} [{', '.join([f'*{mark}{layer - 1}'] * 10)}]" for layer in range(1, layers)
    ]
    return "\n".join(lines) + "\n"


def merges(layers: int = 12) -> str:
    """The same by merged mappings."""
    lines = ["bomb:", "  m0: &m0 {a: 1}"]
    lines += [f"  m{layer}: &m{layer} {{<<: [{', '.join([f'*m{layer - 1}'] * 10)}]}}" for layer in range(1, layers)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [bomb(), bomb("-"), bomb("_"), merges(), "a: &a [*a]\n", "a: &a {b: *a}\n", "[" * 5_000, "{a: " * 5_000, "- " * 5_000, "? " * 5_000, "- x\n" * MAX_BYTES],
    ids=["letters", "hyphen", "underscore", "merges", "endless list", "endless mapping", "brackets", "braces", "dashes", "question marks", "long"],
)  # fmt: skip
@pytest.mark.parametrize("parse", [parse_yaml, dvc_yaml.parse_yaml], ids=["ours", "DVC's"])
def test_no_reader_walks_through_it(parse: Callable[[str, str], object], text: str) -> None:
    """An error that names the file and the remedy, at once."""
    began = time.monotonic()
    with pytest.raises(InputError, match=r"some\.yaml (has|is nested)"):
        parse(text, "some.yaml")
    assert time.monotonic() - began < 10


def test_ordinary_aliases_are_read() -> None:
    """Also by DVC."""
    text = "a: &a {x: 1}\nb:\n  <<: *a\n  y: 2\nc: [*a, *a]\n"
    expected = {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]}
    assert parse_yaml(text, "some.yaml") == expected
    assert dvc_yaml.parse_yaml(text, "some.yaml") == expected


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace without rows."""
    return make_workspace(tmp_path_factory.mktemp("yaml") / "work", None, "text")


PLACES = {
    "params.yaml": lambda text: text + bomb("-"),
    "gates.yaml": lambda text: text + bomb("-"),
    "dvc.yaml": lambda text: text + bomb("-"),
    "dvc.lock": lambda _: "schema: '2.0'\nstages: {}\n" + bomb("-"),
    "data.dvc": lambda text: text + bomb("-", key="meta"),
    "sub/dvc.yaml": lambda _: bomb("-", key="stages"),
    "sub/other.dvc": lambda _: "outs:\n- path: x\n" + bomb("-", key="meta"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLACES)
def test_no_command_hangs_on_a_file_of_the_workspace(name: str, workspace: Path) -> None:
    """`status` reads without a lock and `run` with one; both end with the sentence, for each file that DVC looks for."""
    path = workspace / name
    before = path.read_text() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_text(PLACES[name](before or ""))
    try:
        for command in (_status, _states):
            began = time.monotonic()
            with (
                nullcontext() if (command, name) == (_status, "gates.yaml") else pytest.raises(SeedlingError) as refused
            ):
                command(workspace)  # status reads gates.yaml only once a stage has run
            assert time.monotonic() - began < 20
            assert refused is None or path.name in str(refused.value)
    finally:
        if before is not None:
            path.write_text(before)
        else:
            path.unlink()
            if path.parent != workspace:
                path.parent.rmdir()


def _status(workspace: Path) -> None:
    from seedling.status import read_status

    read_status(workspace)


def _states(workspace: Path) -> None:
    Ledger(workspace).states()


def test_variables_of_a_pipeline_are_limited(workspace: Path) -> None:
    """dvc.yaml may name any file as variables, and DVC reads one of any suffix as YAML."""
    pipeline, variables = workspace / "dvc.yaml", workspace / "notes.txt"
    before = pipeline.read_text()
    pipeline.write_text(before.replace("vars:\n", "vars:\n  - notes.txt\n"))
    variables.write_text(bomb("-"))
    try:
        with pytest.raises(SeedlingError, match=r"notes\.txt"):
            dvc_storage.read_states(workspace)
    finally:
        pipeline.write_text(before)
        variables.unlink()


def test_a_broken_file_is_not_written_to(workspace: Path) -> None:
    """`seedling run --as-of` writes into params.yaml, which it reads with its limits first."""
    path = workspace / "params.yaml"
    before = path.read_text()
    path.write_text("scrape: [\n")
    try:
        with pytest.raises(InputError, match="not readable YAML"):
            set_value(workspace, ["scrape", "as_of"], "x")
        assert path.read_text() == "scrape: [\n"
    finally:
        path.write_text(before)
    assert load(workspace)


@pytest.mark.slow
def test_the_command_says_so(workspace: Path) -> None:
    """Exit code 2 and one sentence."""
    path = workspace / "dvc.lock"
    path.write_text("schema: '2.0'\nstages: {}\n" + bomb("-"))
    try:
        done = seedling("status", "--workspace", workspace)
    finally:
        path.unlink()
    assert done.returncode == 2, done.stderr
    assert "dvc.lock" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
