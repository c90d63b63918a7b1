"""Files that are truncated, half written, merged by git or not in their format: an error names the file and the fix."""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seedling.config.params import load
from seedling.dataset.generation import GenerationWriter, Row, ids_of, read, read_manifest, stream
from seedling.errors import DamagedFile, InputError, SeedlingError, UnexpectedError
from seedling.faults import as_seedling_error
from seedling.features.feature_cache import FeatureCache
from seedling.files.yaml_files import parse_yaml
from seedling.gates.store import remove_damaged_store
from seedling.parallel.memory_limit import estimated_bytes, memory_limit_bytes, memory_warning
from seedling.records.decision import DecisionRecord
from seedling.records.run_records import read_run_records
from seedling.records.test_evaluations import log_test_evaluation, read_test_evaluations
from seedling.scrape.crawl_store import CrawlStore

CONFLICT = "<<<<<<< HEAD\nseed: 1\n=======\nseed: 2\n>>>>>>> theirs\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
)
MERGING_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}\n" for level in range(1, 9)
)


def cut(path: Path) -> None:
    """Leaves the first half of the file, as a full disk or a kill does."""
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"modality: image\n{CONFLICT}", "unsolved merge conflict at line 2: keep one side"),
        (BOMB, "aliases .* stand for more than"),
        (MERGING_BOMB, "aliases .* stand for more than"),
        ("a: &a [*a]", "aliases .* stand for more than"),
        ("[" * 5000 + "]" * 5000, "nested too deeply|not readable YAML"),
        ("a: 2020-13-45", "not readable YAML"),
        ("a: \x00", "not readable YAML"),
        ("a: [", "not readable YAML"),
    ],
)
def test_unreadable_params_are_reported_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    """Conflict markers with the way to solve them, aliases that would fill the memory, and invalid YAML: the error
    names params.yaml.
    """
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=f"params.yaml .*({message})"):
        load(tmp_path)


def test_a_conflict_in_a_file_that_seedling_can_merge_names_the_command() -> None:
    """Programs write dvc.lock, so its conflicts are not solved by hand."""
    with pytest.raises(InputError, match="`seedling resolve`"):
        parse_yaml(CONFLICT, "dvc.lock")


def test_ordinary_aliases_are_read() -> None:
    """A few names for a few values."""
    assert parse_yaml("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}", "params.yaml")["d"] == {"b": 1, "e": 2}


def test_a_truncated_line_in_the_log_of_test_set_evaluations_loses_that_line_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other lines are counted, the next one begins on a new line, and standard error names file and line."""
    log_test_evaluation(tmp_path, "split", "model-1", ["accuracy"])
    log = tmp_path / "test_evaluations.jsonl"
    for copy in (log, tmp_path / ".seedling/test_evaluations.jsonl"):
        with copy.open("a") as file:
            file.write('{"time": "2026-')
    log_test_evaluation(tmp_path, "split", "model-2", ["accuracy"])
    evaluations = read_test_evaluations(tmp_path, "split", has_results=True)
    assert [logged.model for logged in evaluations.models] == ["model-1", "model-2"]
    assert evaluations.incomplete_since is None
    assert f"{log}: line 2 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", '{"name": "r', "[]", '{"name": "run"}'])
def test_a_damaged_run_record_is_omitted_from_the_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    """The other runs are listed, and standard error names the file."""
    folder = tmp_path / ".seedling/runs"
    folder.mkdir(parents=True)
    (folder / "whole.json").write_text(json.dumps({"name": "whole", "ended": "2026-01-01T00:00:00+00:00"}))
    (folder / "cut.json").write_text(content)
    assert [record.name for record in read_run_records(tmp_path)] == ["whole"]
    assert "cut.json is damaged" in capsys.readouterr().err


@pytest.fixture
def generation(tmp_path: Path) -> Path:
    """Forty rows of text."""
    folder = tmp_path / "generations/scrape"
    with GenerationWriter(folder, stage="scrape", modality="text") as writer:
        for number in range(40):
            writer.keep(Row(id=f"{number:032x}", payload=f"text {number}"))
        writer.close(rows_in=40)
    return folder


@pytest.mark.parametrize("name", ["part-00000.parquet", "manifest.json"])
def test_a_truncated_generation_is_reported_with_the_file_and_the_fix(generation: Path, name: str) -> None:
    """By every function that reads it."""
    cut(generation / name)
    for reader in (read, lambda folder: list(stream(folder)), lambda folder: list(ids_of(folder, "pool"))):
        with pytest.raises(DamagedFile, match=rf"{name} is damaged .*delete this file and run `seedling run`"):
            reader(generation)


def test_json_that_is_not_a_manifest_is_reported(generation: Path) -> None:
    """An empty list, for example."""
    (generation / "manifest.json").write_text("[]")
    with pytest.raises(DamagedFile, match=r"manifest\.json is damaged \(it is not a manifest\)"):
        read_manifest(generation)


def test_a_damaged_feature_cache_is_created_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of its contents can be computed again: it is empty, stores new rows, and standard error reports this."""
    cache = FeatureCache(tmp_path, "key")
    cache.put(["a"], np.ones((1, 4), np.float32))
    (tmp_path / "key.sqlite").write_bytes(b"no database " * 1000)
    again = FeatureCache(tmp_path, "key")
    assert again.get(["a"]) == {}
    again.put(["b"], np.ones((1, 4), np.float32))
    assert list(again.get(["a", "b"])) == ["b"]
    assert "key.sqlite is damaged" in capsys.readouterr().err


def test_a_damaged_store_of_a_source_is_never_replaced_silently(tmp_path: Path) -> None:
    """It may hold what the site has removed: the error names the file, how to save the rest, and what is lost if it is
    deleted.
    """
    path = tmp_path / ".seedling/web/site.sqlite"
    with CrawlStore(path) as store:
        store.visit("first", "definition")
    path.write_bytes(b"no database " * 1000)
    before = path.read_bytes()
    with pytest.raises(DamagedFile, match=r"site\.sqlite is damaged .*\.recover.*what the site no longer has is lost"):
        CrawlStore(path)
    assert path.read_bytes() == before


def test_great_expectations_folder_is_removed_only_if_a_file_in_it_is_truncated(tmp_path: Path) -> None:
    """A complete folder stays."""
    store = tmp_path / "gx"
    (store / "expectations").mkdir(parents=True)
    (store / "great_expectations.yml").write_text("stores: {}\ndata_docs_sites: {}\n")
    (store / "expectations/scrape.json").write_text("{}")
    assert not remove_damaged_store(store)
    (store / "expectations/scrape.json").write_text('{"a": ')
    assert remove_damaged_store(store)
    assert not store.exists()


def test_a_full_disk_is_reported_with_the_file(tmp_path: Path) -> None:
    """The error names the cause instead of a library's message."""
    program = (
        "import sys; from pathlib import Path; from seedling.faults import as_seedling_error\n"
        "try: Path(sys.argv[1]).write_bytes(bytes(10**6))\n"
        "except Exception as error: print(as_seedling_error(error, 'x', None))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "large"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("The disk is full")
    assert "free space and run again" in done.stdout


def test_an_unexpected_error_has_a_sentence_a_log_file_and_an_exit_code_of_its_own(tmp_path: Path) -> None:
    """Never exit code 1, which means that a gate failed."""
    (tmp_path / ".seedling").mkdir()
    try:
        np.zeros(3).reshape(2, 2)
    except ValueError as error:
        seedling_error = as_seedling_error(error, "seedling run", tmp_path)
    assert isinstance(seedling_error, UnexpectedError)
    assert seedling_error.exit_code == 70
    log = tmp_path / ".seedling/logs/errors.log"
    assert str(log) in str(seedling_error)
    assert "test_damaged_files.py" in log.read_text()


def test_a_known_cause_of_an_error_in_a_library_is_reported() -> None:
    """DVC and Prefect wrap the error of the operating system."""
    try:
        try:
            raise OSError(28, "No space left on device", "/w/file")
        except OSError as cause:
            raise RuntimeError("upload failed") from cause
    except RuntimeError as error:
        seedling_error = as_seedling_error(error, "x", None)
    assert str(seedling_error).startswith("The disk is full at /w/file")
    assert seedling_error.exit_code == 2


def test_errors_can_be_pickled_without_loss() -> None:
    """Prefect and joblib send them between processes."""
    error = pickle.loads(pickle.dumps(DamagedFile("a.json", ValueError("cut"), "delete it")))  # noqa: S301
    assert str(error) == "a.json is damaged (ValueError: cut): delete it."
    assert isinstance(error, SeedlingError)


@pytest.mark.parametrize(
    ("file", "membership"),
    [
        ("memory.max", "0::/user/run\n"),
        ("memory.limit_in_bytes", "4:cpu,memory:/user/run\n"),
    ],
)
def test_the_memory_limit_is_the_smallest_of_all_parents(tmp_path: Path, file: str, membership: str) -> None:
    """Of a container, a service or a pod, in both versions of cgroups."""
    root = tmp_path / "cgroup" if file == "memory.max" else tmp_path / "cgroup/memory"
    (root / "user/run").mkdir(parents=True)
    (root / "user/run" / file).write_text("max\n" if file == "memory.max" else f"{2**63 - 4096}\n")
    (root / "user" / file).write_text("2000000000\n")
    listed = tmp_path / "self"
    listed.write_text(membership)
    assert memory_limit_bytes(tmp_path / "cgroup", listed) == 2_000_000_000


def test_too_little_memory_is_reported_before_the_start_with_the_numbers() -> None:
    """The required and the available memory; nothing is reported if there is enough."""
    sentence = memory_warning(20_000, "image", limit=2**30)
    assert sentence is not None
    assert "20,000 rows" in sentence
    assert "1.0 GiB" in sentence
    assert memory_warning(20_000, "image", limit=2 * estimated_bytes(20_000, "image")) is None


@pytest.mark.parametrize(
    "content", ["{}", '{"round": 0, "decision": "accepted", "reason": "", "stop": false}', "[", '{"round": "x"}']
)
def test_a_decision_without_its_keys_is_a_damaged_file(content: str, tmp_path: Path) -> None:
    """The error names the file and the fix, and is not a KeyError."""
    path = tmp_path / "models" / "0" / "decision.json"
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DamagedFile, match=r"decision\.json.*seedling run"):
        DecisionRecord.read(path)
