"""Code in a folder of data is executed only where params.yaml or gates.yaml names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seedling.augment.image_policy import PolicyTransform
from seedling.augment.makers import Resources
from seedling.config.params import SynthesizeParams
from seedling.errors import InputError
from seedling.gates.checking import load_gates, load_user_expectations
from seedling.init.create import InitFindings, InitOptions, describe_left_out, make_workspace
from seedling.media import images
from seedling.plugins import ANNOUNCED, NO_PLUGINS, defined_in, plugin_functions
from seedling.synthesize.pasting import _finder

MARKS = (
    "import pathlib\npathlib.Path({mark!r}).write_text('ran')\n\n\ndef darker(pixels, rng):\n    return pixels // 2\n"
)


def strangers_folder(folder: Path, mark: Path) -> Path:
    """Two classes of images, and code of every kind beside and among them."""
    for label in ("cat", "dog"):
        for number in range(3):
            path = folder / "labeled" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number + len(label)).integers(0, 255, (20, 20, 3)).astype(np.uint8)
            path.write_bytes(images.encode(pixels))
    for name in ("augmenting.py", "labeling.py", "expectations.py", "labeled/cat/conftest.py", "run.SH", "a.pth"):
        (folder / name).write_text(MARKS.format(mark=str(mark)))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("pack", [False, True])
def test_init_does_not_copy_code_and_lists_it(pack: bool, tmp_path: Path) -> None:
    """Six files are code by their names; with --with-code they are copied, and never executed."""
    mark = tmp_path / "ran"
    source, findings = strangers_folder(tmp_path / "source", mark), InitFindings()
    workspace = make_workspace(tmp_path / "work", source, "image", options=InitOptions(pack=pack), findings=findings)
    assert not [path for path in (workspace / "data").rglob("*") if path.suffix.lower() in {".py", ".sh", ".pth"}]
    assert sorted(findings.left_out) == sorted(
        (name, "code")
        for name in ("augmenting.py", "labeling.py", "expectations.py", "labeled/cat/conftest.py", "run.SH", "a.pth")
    )
    (sentence,) = describe_left_out(findings.left_out)
    assert "6" in sentence and "--with-code" in sentence
    kept = make_workspace(tmp_path / "kept", source, "image", options=InitOptions(pack=pack, with_code=True))
    assert (kept / "data/augmenting.py").is_file()
    assert not mark.exists()


def test_a_file_that_params_do_not_name_is_not_loaded(tmp_path: Path) -> None:
    """By augment, synthesize and the gates, though it has the usual name; named, it is loaded and printed."""
    mark, data = tmp_path / "ran", tmp_path / "data"
    data.mkdir()
    for path in (data / "augmenting.py", tmp_path / "expectations.py"):
        path.write_text(MARKS.format(mark=str(mark)))
    assert Resources.of(data).plugins == {}
    with pytest.raises(InputError, match=r"plugin: augmenting\.py"):
        _finder(SynthesizeParams(cut_by="darker"), data)
    (tmp_path / "gates.yaml").write_text("scrape: [expect_column_values_to_not_be_null: {column: label}]")
    assert load_user_expectations(tmp_path, load_gates(tmp_path)).functions == {}
    assert not mark.exists()
    assert list(Resources.of(data, plugin_file="augmenting.py").plugins) == ["darker"]
    assert mark.exists()


def test_each_loaded_file_is_printed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the key that names it."""
    monkeypatch.setenv(ANNOUNCED, "")
    (tmp_path / "augmenting.py").write_text("def darker(pixels, rng):\n    return pixels\n")
    for _ in range(2):
        plugin_functions(tmp_path, "augmenting.py", "seedling.nothing", "augment.plugin")
    assert capsys.readouterr().err == f"Plugin loaded: {tmp_path / 'augmenting.py'} (augment.plugin)\n"


def test_a_named_plugin_is_an_error_if_plugins_are_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run stops instead of giving other results; the error names the file."""
    mark = tmp_path / "ran"
    (tmp_path / "augmenting.py").write_text(MARKS.format(mark=str(mark)))
    (tmp_path / "expectations.py").write_text("def expect_column_values_to_be_good(values):\n    return values > 0\n")
    (tmp_path / "gates.yaml").write_text("scrape: [expect_column_values_to_be_good: {column: width}]")
    monkeypatch.setenv(NO_PLUGINS, "1")
    with pytest.raises(InputError, match=r"augmenting\.py.*switched off"):
        Resources.of(tmp_path, plugin_file="augmenting.py")
    with pytest.raises(InputError, match=r"expectations\.py.*switched off"):
        load_user_expectations(tmp_path, load_gates(tmp_path))
    assert not mark.exists()


def test_a_plugin_lies_in_data(tmp_path: Path) -> None:
    """Neither a path nor a link leads to code elsewhere."""
    mark, data = tmp_path / "ran", tmp_path / "data"
    data.mkdir()
    (tmp_path / "elsewhere.py").write_text(MARKS.format(mark=str(mark)))
    (data / "augmenting.py").symlink_to(tmp_path / "elsewhere.py")
    for name in ("augmenting.py", "../elsewhere.py", str(tmp_path / "elsewhere.py")):
        with pytest.raises(InputError, match="leads out of"):
            Resources.of(data, plugin_file=name)
    assert not mark.exists()


def test_errors_of_a_plugin_name_the_file_that_defines_it(tmp_path: Path) -> None:
    """Whatever the file's name is, and not the path of the run's snapshot; an entry point is named by its module."""
    snapshot = tmp_path / ".seedling" / "snapshot" / "data"
    snapshot.mkdir(parents=True)
    (snapshot / "camera.py").write_text("def broken(pixels, rng):\n    return rng.nothing\n")
    functions = plugin_functions(snapshot, "camera.py", "seedling.nothing", "augment.plugin")
    assert defined_in(functions["broken"]) == "data/camera.py"
    assert defined_in(plugin_functions) == "seedling.plugins"
    policy = PolicyTransform([{"own": {"name": "broken"}}], functions)
    with pytest.raises(InputError, match=r"^data/camera\.py: 'broken' failed on an image"):
        policy(np.full((8, 8, 3), 9, np.uint8), 0)
