"""A workspace that `seedling init` of pipeline version 15 created is migrated, and runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prefect_runs import own_environment
from short_runs import run_all_stages
from text_workspaces import call

from seedling.config.former_keys import FORMER_KEYS, FORMER_VALUES
from seedling.config.params import known_keys, load
from seedling.errors import InputError
from seedling.migration import migrate
from seedling.versioning.dvc_yaml import render_dvc_yaml
from seedling.versioning.repository import create_repository

FORMER = Path(__file__).parent / "workspace_version_15"  # as that version wrote it, with more keys set in params.yaml
CRAWL = "    - {kind: crawl, start: 'http://site.example/', licence: CC0, item: p}  # theirs"


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """A copy of the former workspace."""
    return shutil.copytree(FORMER, tmp_path / "letters")


def test_params_are_renamed_and_keep_their_values_order_and_comments(former: Path) -> None:
    """Keys, values of lists, keys of sources; the encoder moves to the top."""
    (former / "params.yaml").write_text(
        (former / "params.yaml")
        .read_text()
        .replace("# my letters", f"# my letters\n{CRAWL}")
        .replace("encoder: null", "encoder: {model: ./minilm}  # ours\n ")
        .replace("augment: {children: null,", "augment: {children: 3, policy: [grey, {colour_rotation: 0.5}],")
    )
    migrate(former)
    text = (former / "params.yaml").read_text()
    params = yaml.safe_load(text)
    assert list(params)[:6] == ["pipeline_version", "modality", "effort", "seed", "max_megapixels", "encoder"]
    assert (params["pipeline_version"], params["encoder"]) == (18, {"model": "./minilm"})
    assert params["augment"] == {
        "augmentations_per_row": 3,
        "policy": ["gray", {"color_rotation": 0.5}],
        "weight": 0.5,
    }
    assert params["train"]["candidates"] == ["logistic_regression", "nearest_neighbors"]
    assert params["train"]["losses"] == ["plain", "label_weighted"]
    assert list(params["train"])[-2:] == ["target_selective_accuracy", "converged_share"]
    assert "worse_probability" not in text, "the decision has another rule"
    assert params["pseudo_label"]["filter"] == "top_per_class"
    assert (params["pseudo_label"]["neighbors"], params["validate"]["label_issues"]) == (10, "report")
    assert list(params["scrape"]["sources"][1]) == ["kind", "start", "license", "item"]
    for comment in ("# my letters", "# quick, normal or thorough", "# which version of the stages made this"):
        assert comment in text
    load(former)


def test_gates_have_the_current_column_names(former: Path) -> None:
    """Also a column within a list; other strings stay."""
    gates = former / "gates.yaml"
    gates.write_text(
        gates.read_text()
        + "  - expect_compound_columns_to_be_unique: {column_list: [id, parents], severity: warning}\n"
    )
    migrate(former)
    evaluate = yaml.safe_load(gates.read_text())["evaluate"]
    assert evaluate[1]["expect_column_mean_to_be_between"]["column"] == "correct"
    assert evaluate[2]["expect_compound_columns_to_be_unique"]["column_list"] == ["id", "parent_ids"]


def test_dvc_yaml_gets_the_stages_of_this_version(former: Path) -> None:
    """Every stage's command, dependencies, params, outputs and plots, except for the order of params."""
    migrate(former)
    migrated, rendered = (yaml.safe_load(text) for text in ((former / "dvc.yaml").read_text(), render_dvc_yaml()))
    for pipeline in (migrated, rendered):
        for stage in pipeline["stages"].values():
            params = stage.get("do", stage)["params"]
            params.sort(key=str)
    assert migrated == rendered
    assert "entrypoint: seedling.flows.grow.scheduled" in (former / "prefect.yaml").read_text()


def test_a_second_migration_changes_nothing(former: Path) -> None:
    """It prints nothing either."""
    assert len(migrate(former)) == 6
    assert migrate(former) == []


def test_a_plugin_that_imports_a_former_module_is_named(former: Path) -> None:
    """It is not changed, because it is the user's code."""
    (former / "expectations.py").write_text("from tasks.gates import x\n")
    (former / "other.py").write_text("import tasksomething\n")
    hints = [change for change in migrate(former) if "imports a module by its former name" in change]
    assert [hint.partition(" ")[0] for hint in hints] == ["expectations.py"]


def test_invalid_params_leave_every_file_unchanged(former: Path) -> None:
    """The error is that of the params."""
    (former / "params.yaml").write_text((former / "params.yaml").read_text() + "nonsense: 1\n")
    before = {path.name: path.read_bytes() for path in former.iterdir() if path.is_file()}
    with pytest.raises(InputError, match="unknown key 'nonsense'"):
        migrate(former)
    assert {path.name: path.read_bytes() for path in former.iterdir() if path.is_file()} == before


def test_other_versions_are_refused(former: Path) -> None:
    """An older one, a later one, and one that is not a number; the error names the versions that can be migrated."""
    text = (former / "params.yaml").read_text()
    for version in ("13", "19", "'16'"):
        (former / "params.yaml").write_text(text.replace("line: 15", f"line: {version}"))
        with pytest.raises(
            InputError, match="version " + version.strip("'") + r" cannot be migrated.*versions 15 to 17"
        ):
            migrate(former)


@pytest.mark.parametrize("version", [16, 17])
def test_later_versions_lose_only_removed_keys(former: Path, version: int) -> None:
    """Their files have the present names: only params.yaml changes, in its number and in the keys of the decision."""
    migrate(former)
    params = former / "params.yaml"
    present = params.read_text()
    gone = "train: {decision_seeds: 3, margin: 0.01, reject_if_p_worse: 0.7, "
    assert "train: {" in present
    params.write_text(present.replace("pipeline_version: 18", f"pipeline_version: {version}").replace("train: {", gone))
    others = {path.name: path.read_bytes() for path in former.iterdir() if path.is_file() and path != params}
    assert migrate(former) == ["params.yaml: rewritten for pipeline version 18."]
    assert params.read_text() == present
    assert {path.name: path.read_bytes() for path in former.iterdir() if path.is_file() and path != params} == others


def test_a_removed_key_is_an_error_with_the_reason(former: Path) -> None:
    """The message has the command that removes it."""
    migrate(former)
    params = former / "params.yaml"
    params.write_text(params.read_text().replace("train: {", "train: {margin: 0.01, "))
    with pytest.raises(InputError, match=r"'train\.margin' is gone: a round is accepted by train\.accept_if_p_better"):
        load(former)


def test_a_former_key_is_an_error_that_names_the_current_one(former: Path) -> None:
    """The message has the command that renames it."""
    with pytest.raises(InputError, match="'line' is now 'pipeline_version': `seedling migrate` renames it"):
        load(former)
    params = (former / "params.yaml").read_text().replace("# my letters", f"# my letters\n{CRAWL}")
    (former / "params.yaml").write_text(params)
    with pytest.raises(InputError, match=r"'scrape\.sources\.1\..*licence' is now 'scrape\.sources\.1\..*license'"):
        load(former)


def test_every_current_name_is_a_key() -> None:
    """The tables of renamed keys and values lead from names that do not exist to names that do."""
    existing_keys = set(known_keys())
    assert {name.rpartition(".")[2] for name in FORMER_KEYS.values()} <= existing_keys
    assert {key.rpartition(".")[2] for key in FORMER_KEYS} & existing_keys <= {"encoder"}
    assert {key.rpartition(".")[2] for key in FORMER_VALUES} <= existing_keys


@pytest.mark.slow
def test_a_migrated_workspace_runs(former: Path, tmp_path: Path) -> None:
    """`seedling run` names the command; after `seedling migrate` it runs, and DVC reports nothing to do."""
    subprocess.run(["git", "init", "-q"], cwd=former, check=True)
    create_repository(former)
    environment = own_environment(tmp_path)
    refused = subprocess.run(["seedling", "run"], cwd=former, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "`seedling migrate`" in refused.stderr
    printed = call(["seedling", "migrate"], former, environment)
    assert [line.partition(":")[0] for line in printed.splitlines()[:3]] == ["params.yaml", "gates.yaml", "dvc.yaml"]
    run_all_stages(former)
    assert json.loads((former / "reports" / "metrics.json").read_text())["accuracy"] > 0.5
    assert "changed" not in call(["dvc", "status"], former, environment)
