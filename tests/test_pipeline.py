"""The stage table, and what is rendered from it or documented about it."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from seedling.cli.stage import stage as stage_command
from seedling.config.params import Params, set_value
from seedling.pipeline import find_stage, row_stages, stage_kinds, stages
from seedling.versioning.dvc_yaml import render_dvc_yaml
from seedling.versioning.ledger import open_ledger

PROJECT = Path(__file__).parents[1]
NO_STAGE = {"remote", "push", "push_minutes", "notify", "reports", "review"}
ATTRIBUTE_KEYS = {  # attribute of Params → keys of params.yaml that its value is computed from
    "config": {"pipeline_version", "modality", "seed", "max_megapixels"},  # and effort, where the stage lists it
    "rounds": {"effort", "pseudo_label.rounds"},
    "validate_": {"validate"},
}


def documented_keys() -> dict[str, list[str]]:
    """Key or section → stages, as docs/params.md lists them."""
    text = (
        (PROJECT / "docs/params.md").read_text(encoding="utf-8").split("| key or section | stages that run again |")[1]
    )
    listed: dict[str, list[str]] = {}
    for keys, names in re.findall(r"^\| (`.+`) \| (.+) \|$", text.split("\n\n")[0], flags=re.MULTILINE):
        kinds = {"all": stage_kinds(), "none": []}.get(names, names.split(", "))
        listed |= dict.fromkeys(re.findall(r"`([^`]+)`", keys), kinds)
    return listed


def kinds_that_list(key: str) -> list[str]:
    """The kinds of stages with this key, or the section that holds it, in the table, in the order of the pipeline."""
    sections = {key, key.partition(".")[0]}
    return list(dict.fromkeys(stage.kind for stage in stages().values() if sections & set(stage.params)))


def test_the_order_of_the_stages() -> None:
    """The expected order is written out."""
    assert list(stages(1)) == [
        *("scrape", "validate", "augment", "synthesize", "train@0", "pseudo_label@1", "train@1", "evaluate"),
    ]
    assert len(stages()) == 12
    assert stage_kinds() == ["scrape", "validate", "augment", "synthesize", "train", "pseudo_label", "evaluate"]
    assert row_stages() == ["scrape", "validate", "augment", "synthesize"]
    assert find_stage("train@2").inputs[-2:] == ("generations/pseudo_label/2", "models/1")


def test_each_input_is_of_the_user_or_an_output_of_an_earlier_stage() -> None:
    """An input may also be a folder that contains such outputs."""
    outputs = {"data", "reviews"}
    for stage in stages().values():
        for name in stage.inputs:
            assert any(output == name or output.startswith(f"{name}/") for output in outputs), (stage.name, name)
        outputs.add(stage.output)


def test_dvc_reads_the_stage_table_from_dvc_yaml(tmp_path: Path) -> None:
    """Names, commands, dependencies, outputs and params of each stage, as DVC reads them from the rendered file."""
    for name in ("params.yaml", "gates.yaml"):
        shutil.copy(PROJECT / name, tmp_path / name)
    (tmp_path / "dvc.yaml").write_text(render_dvc_yaml())
    (tmp_path / "data").mkdir()
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        dvc_stages: dict[str, Any] = {stage.name: stage for stage in repo.index.stages}
    assert set(dvc_stages) == set(stages())
    for name, stage in stages().items():
        assert dvc_stages[name].cmd == f"python -P -m seedling.runner {name}"
        inputs = [dep.def_path for dep in dvc_stages[name].deps if dep.def_path not in {"params.yaml", "gates.yaml"}]
        no_round = {"generations/synthesize/manifest.json", "generations/augment/manifest.json"}
        assert set(inputs) - (no_round if name == "train@0" else set()) == set(stage.inputs)
        keys = {dep.def_path: set(dep.params) for dep in dvc_stages[name].deps if hasattr(dep, "params")}
        assert keys == {"params.yaml": set(stage.params), "gates.yaml": {stage.kind}}
        outs = [out.def_path for out in dvc_stages[name].outs]
        assert outs == [stage.output] or all(out.startswith("reports/") for out in outs)


def test_the_projects_own_dvc_yaml_is_rendered_from_the_table() -> None:
    """The embedded example runs the pipeline of every new workspace."""
    assert (PROJECT / "dvc.yaml").read_text(encoding="utf-8") == render_dvc_yaml()


@pytest.mark.parametrize("kind", stage_kinds())
def test_a_stage_function_reads_no_key_that_the_table_lacks(kind: str) -> None:
    """Each attribute of `params` in the stage's function is one of its keys, or is computed from them."""
    tree = ast.parse((PROJECT / "seedling/pipeline.py").read_text(encoding="utf-8"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == kind]
    keys: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "params":
            keys |= ATTRIBUTE_KEYS.get(node.attr, {node.attr})
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value).startswith("params."):
            keys |= {ast.unparse(node).removeprefix("params.")}
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "context.encoder":
            keys |= {"encoder"}
    (stage, *_) = [stage for stage in stages().values() if stage.kind == kind]
    covered = {key for key in keys if key in stage.params or key.partition(".")[0] in stage.params}
    assert keys - covered == set()


def test_the_page_on_params_lists_the_stages_that_each_key_runs_again() -> None:
    """All keys on top and all sections, and the keys within them that more stages read."""
    listed = documented_keys()
    names_of_fields = {field.alias or name for name, field in Params.model_fields.items()}
    assert {key for key in listed if "." not in key} == names_of_fields
    assert {key for stage in stages().values() for key in stage.params} <= set(listed)
    for key, kinds in listed.items():
        assert kinds == kinds_that_list(key), key
    assert {key for key, kinds in listed.items() if not kinds} == NO_STAGE


def test_the_help_of_the_stage_command_names_all_stages() -> None:
    """With R for the round."""
    names = re.findall(r"[a-z_]+(?:@R)?", str(stage_command.__annotations__["name"]).split("help='")[1].split("'")[0])
    rounds = {stage.kind for stage in stages().values() if "@" in stage.name}
    assert [name for name in names if name != "or"] == [
        f"{kind}@R" if kind in rounds else kind for kind in stage_kinds()
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 9),
        ("effort", "normal"),
        ("scrape.max_megabytes", 40),
        ("validate.folds", 4),
        ("augment.weight", 0.25),
        ("synthesize.weight", 0.25),
        ("train.margin", 0.01),
        ("pseudo_label.weight", 0.5),
        ("pseudo_label.rounds", 2),
        ("evaluate.confidence", 0.9),
        ("push", True),
    ],
)
def test_a_changed_key_runs_the_documented_stages_again(finished_copy: Path, key: str, value: Any) -> None:
    """By `dvc status` in a workspace whose pipeline is up to date."""
    assert open_ledger(finished_copy).states() == {}
    set_value(finished_copy, key.split("."), value)
    changed = {name.partition("@")[0] for name in open_ledger(finished_copy).states()}
    documented = documented_keys()
    assert changed == set(documented.get(key, documented[key.partition(".")[0]]))
