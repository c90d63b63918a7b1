"""The stage table: each stage's name, function, inputs, output and params, in the order of the pipeline.

dvc.yaml is rendered from it (seedling/versioning/dvc_yaml.py); the flow, `seedling status`, `seedling stage` and the
report read it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from seedling.config.params import MAX_ROUNDS, Params
from seedling.errors import InputError
from seedling.features.encoder_handle import EncoderHandle
from seedling.progress import Progress
from seedling.workspace import DATA, GENERATIONS, MODELS, REPORTS, REVIEWS, Workspace

if TYPE_CHECKING:
    from seedling.features.image_cache import ImageCache

COLLECTED, VALIDATED = f"{GENERATIONS}/scrape", f"{GENERATIONS}/validate"
AUGMENTED, SYNTHESIZED = f"{GENERATIONS}/augment", f"{GENERATIONS}/synthesize"
WORKSPACE_PARAMS = ("pipeline_version", "modality", "seed", "max_megapixels")  # params.yaml keys that all stages read


@dataclass(frozen=True)
class StageContext:
    """The arguments of a stage's function.

    workspace: the folder of generations/ and models/; data: the input folder; output: the new folder to write to;
    encoder: the workspace's pretrained encoder, if any.
    """

    params: Params
    workspace: Path
    data: Path
    output: Path
    progress: Progress
    encoder: EncoderHandle | None

    @property
    def feature_cache(self) -> Path:
        """The folder of the feature cache."""
        return Workspace(self.workspace).feature_cache

    @property
    def image_cache(self) -> ImageCache | None:
        """What scrape measures on each image, for later stages; None for texts."""
        from seedling.features.image_cache import ImageCache

        if self.params.modality == "text":
            return None
        return ImageCache(self.feature_cache, keeps_copies=self.encoder is None)


StageFunction = Callable[[StageContext], None]


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    name: as in dvc.yaml, with the round after an @; inputs, output: folders, relative to the workspace;
    params: the keys of params.yaml that the stage depends on.
    """

    name: str
    function: StageFunction
    inputs: tuple[str, ...]
    output: str
    params: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The name without the round: the stage's package, its section of params.yaml, its list in gates.yaml."""
        return self.name.partition("@")[0]


def scrape(context: StageContext) -> None:
    """Runs the package scrape on the workspace."""
    from seedling.scrape import scrape as run

    params, crawl_stores = context.params, Workspace(context.workspace).crawl_stores
    run(
        params.scrape,
        params.config,
        data=context.data,
        output=context.output,
        crawl_stores=crawl_stores,
        image_cache=context.image_cache,
        progress=context.progress,
    )


def validate(context: StageContext) -> None:
    """Runs the package validate on the workspace."""
    from seedling.models.saving import make_features
    from seedling.validate import validate as run

    params = context.params
    run(
        params.validate_,
        params.config,
        features=make_features(context.encoder, None, params.config, context.feature_cache),
        image_cache=context.image_cache,
        collected=context.workspace / COLLECTED,
        reviews=Workspace(context.data.parent).reviews,
        output=context.output,
        progress=context.progress,
    )


def augment(context: StageContext) -> None:
    """Runs the package augment on the workspace."""
    from seedling.augment import augment as run
    from seedling.models.saving import make_features

    params = context.params
    run(
        params.augment,
        params.config,
        **_rows(context.workspace),
        output=context.output,
        data=context.data,
        features=make_features(context.encoder, None, params.config, context.feature_cache),
        progress=context.progress,
    )


def synthesize(context: StageContext) -> None:
    """Runs the package synthesize on the workspace."""
    from seedling.synthesize import synthesize as run

    params = context.params
    run(
        params.synthesize,
        params.config,
        **_rows(context.workspace),
        output=context.output,
        data=context.data,
        progress=context.progress,
    )


def train(round_number: int) -> StageFunction:
    """Returns the function that runs the package train on the workspace, for one round."""

    def run_round(context: StageContext) -> None:
        from seedling.train import InputFolders
        from seedling.train import train as run

        params, workspace, has_teacher = context.params, context.workspace, round_number > 0
        folders = InputFolders(
            **_rows(workspace),
            augmented=workspace / AUGMENTED,
            synthesized=workspace / SYNTHESIZED,
            pseudo_labels=workspace / _pseudo_labels(round_number) if has_teacher else None,
            teacher=workspace / _model(round_number - 1) if has_teacher else None,
        )
        run(
            params.train,
            params.config,
            round_number=round_number,
            rounds=params.rounds,
            folders=folders,
            workspace=workspace,
            inputs=context.data.parent,
            output=context.output,
            encoder=context.encoder,
            progress=context.progress,
        )

    return run_round


def pseudo_label(round_number: int) -> StageFunction:
    """Returns the function that runs the package pseudo_label on the workspace, for one round."""

    def run_round(context: StageContext) -> None:
        from seedling.pseudo_label import pseudo_label as run

        params = context.params
        run(
            params.pseudo_label,
            params.config,
            round_number=round_number,
            rounds=params.rounds,
            **_rows(context.workspace),
            teacher=context.workspace / _model(round_number - 1),
            workspace=context.workspace,
            output=context.output,
            progress=context.progress,
        )

    return run_round


def evaluate(context: StageContext) -> None:
    """Runs the package evaluate on the workspace."""
    from seedling.evaluate import evaluate as run

    params, workspace = context.params, context.workspace
    run(
        params.evaluate,
        params.config,
        **_rows(workspace),
        generations=Workspace(workspace).generations,
        models=Workspace(workspace).models,
        workspace=workspace,
        output=context.output,
        progress=context.progress,
    )


def _model(round_number: int) -> str:
    return f"{MODELS}/{round_number}"


def _pseudo_labels(round_number: int) -> str:
    return f"{GENERATIONS}/pseudo_label/{round_number}"


class RowFolders(TypedDict):
    """The generations that hold the payloads of rows, and their labels and folds."""

    collected: Path
    validated: Path


def _rows(workspace: Path) -> RowFolders:
    return {"collected": workspace / COLLECTED, "validated": workspace / VALIDATED}


def stages(rounds: int = MAX_ROUNDS) -> dict[str, Stage]:
    """Returns the stages by name, in the order of the pipeline, with rounds 1 to `rounds`."""
    rows, new_rows = (COLLECTED, VALIDATED), (AUGMENTED, SYNTHESIZED)
    with_effort = (*WORKSPACE_PARAMS, "effort")
    train_params = (*with_effort, "encoder", "train", "pseudo_label.rounds")
    table = [
        Stage("scrape", scrape, (DATA,), COLLECTED, (*WORKSPACE_PARAMS, "scrape")),
        Stage("validate", validate, (COLLECTED, REVIEWS), VALIDATED, (*WORKSPACE_PARAMS, "encoder", "validate")),
        Stage("augment", augment, (DATA, *rows), AUGMENTED, (*with_effort, "encoder", "augment")),
        Stage("synthesize", synthesize, (DATA, *rows), SYNTHESIZED, (*with_effort, "synthesize")),
        Stage("train@0", train(0), (*rows, *new_rows), _model(0), train_params),
    ]
    for number in range(1, rounds + 1):
        teacher, labels = _model(number - 1), _pseudo_labels(number)
        table += [
            Stage(
                f"pseudo_label@{number}",
                pseudo_label(number),
                (*rows, teacher),
                labels,
                (*with_effort, "pseudo_label"),
            ),
            Stage(f"train@{number}", train(number), (*rows, *new_rows, labels, teacher), _model(number), train_params),
        ]
    table.append(Stage("evaluate", evaluate, (GENERATIONS, MODELS), REPORTS, (*with_effort, "evaluate")))
    return {stage.name: stage for stage in table}


def stage_kinds() -> list[str]:
    """The kinds of stages, in the order of the pipeline."""
    return list(dict.fromkeys(stage.kind for stage in stages().values()))


def row_stages() -> list[str]:
    """The stages before the rounds, which write one generation of rows per run."""
    return [stage.name for stage in stages(0).values() if stage.output.startswith(f"{GENERATIONS}/")]


def find_stage(name: str) -> Stage:
    """Returns the stage with this name. Raises InputError, with the valid names, if there is none."""
    table = stages()
    if name not in table:
        raise InputError(f"Unknown stage '{name}'. The stages are {', '.join(table)}.")
    return table[name]
