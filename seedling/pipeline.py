"""The stage table: each stage's name, function, inputs and output, in the order of the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seedling.config.params import Params
from seedling.errors import InputError
from seedling.progress import Progress

Work = Callable[[Params, Path, Path, Path, Progress], None]  # params, workspace, data, output, progress

COLLECTED, VALIDATED = "generations/scrape", "generations/validate"
AUGMENTED, SYNTHESIZED = "generations/augment", "generations/synthesize"


@dataclass(frozen=True)
class Stage:
    """A stage: `name` as in dvc.yaml, the folders that it reads and the one that it writes, relative to the workspace."""

    name: str
    work: Work
    inputs: tuple[str, ...]
    output: str

    @property
    def kind(self) -> str:
        """The name without the round: room, section of params.yaml, list of gates.yaml."""
        return self.name.partition("@")[0]


def scrape(params: Params, workspace: Path, data: Path, output: Path, progress: Progress) -> None:
    """seedling/scrape on this workspace."""
    from seedling.scrape import scrape as work

    remembered = workspace / ".seedling" / "web"
    work(params.scrape, params.facts, data=data, output=output, remembered=remembered, progress=progress)


def validate(params: Params, workspace: Path, data: Path, output: Path, progress: Progress) -> None:
    """seedling/validate on this workspace."""
    from seedling.models.saving import make_features
    from seedling.validate import validate as work

    work(
        params.validate_,
        params.facts,
        features=make_features(params.train.encoder, None, params.facts, workspace),
        collected=workspace / COLLECTED,
        output=output,
        progress=progress,
    )


def augment(params: Params, workspace: Path, data: Path, output: Path, progress: Progress) -> None:
    """seedling/augment on this workspace."""
    from seedling.augment import augment as work
    from seedling.models.saving import make_features

    work(
        params.augment,
        params.facts,
        **_rows(workspace),
        output=output,
        data=data,
        features=make_features(params.train.encoder, None, params.facts, workspace),
        progress=progress,
    )


def synthesize(params: Params, workspace: Path, data: Path, output: Path, progress: Progress) -> None:
    """seedling/synthesize on this workspace."""
    from seedling.synthesize import synthesize as work

    work(params.synthesize, params.facts, **_rows(workspace), output=output, data=data, progress=progress)


def train(round_number: int) -> Work:
    """seedling/train on this workspace, for one round."""

    def run(params: Params, workspace: Path, data: Path, output: Path, progress: Progress) -> None:
        from seedling.train import Sources
        from seedling.train import train as work

        later = round_number > 0
        sources = Sources(
            **_rows(workspace),
            augmented=workspace / AUGMENTED,
            synthesized=workspace / SYNTHESIZED,
            pseudo_labels=workspace / f"generations/pseudo_label/{round_number}" if later else None,
            teacher=workspace / f"models/{round_number - 1}" if later else None,
        )
        work(
            params.train,
            params.facts,
            round_number=round_number,
            rounds=params.rounds,
            sources=sources,
            workspace=workspace,
            inputs=data.parent,
            output=output,
            progress=progress,
        )

    return run


def pseudo_label(round_number: int) -> Work:
    """seedling/pseudo_label on this workspace, for one round."""

    def run(params: Params, workspace: Path, data: Path, output: Path, progress: Progress) -> None:
        from seedling.pseudo_label import pseudo_label as work

        work(
            params.pseudo_label,
            params.facts,
            round_number=round_number,
            rounds=params.rounds,
            **_rows(workspace),
            teacher=workspace / f"models/{round_number - 1}",
            output=output,
            progress=progress,
        )

    return run


def evaluate(params: Params, workspace: Path, data: Path, output: Path, progress: Progress) -> None:
    """seedling/evaluate on this workspace."""
    from seedling.evaluate import evaluate as work

    work(
        params.evaluate,
        params.facts,
        **_rows(workspace),
        generations=workspace / "generations",
        models=workspace / "models",
        workspace=workspace,
        output=output,
        progress=progress,
    )


def _rows(workspace: Path) -> dict[str, Path]:
    return {"collected": workspace / COLLECTED, "validated": workspace / VALIDATED}


ROUNDS = 3  # as many as dvc.yaml lists; params and effort may ask for fewer


def stages(rounds: int = ROUNDS) -> dict[str, Stage]:
    """The line in its order, by name."""
    rows, made = (COLLECTED, VALIDATED), (AUGMENTED, SYNTHESIZED)
    line = [
        Stage("scrape", scrape, ("data",), COLLECTED),
        Stage("validate", validate, (COLLECTED,), VALIDATED),
        Stage("augment", augment, ("data", *rows), AUGMENTED),
        Stage("synthesize", synthesize, ("data", *rows), SYNTHESIZED),
        Stage("train@0", train(0), (*rows, *made), "models/0"),
    ]
    for one in range(1, rounds + 1):
        teacher, labels = f"models/{one - 1}", f"generations/pseudo_label/{one}"
        line.append(Stage(f"pseudo_label@{one}", pseudo_label(one), (*rows, teacher), labels))
        line.append(Stage(f"train@{one}", train(one), (*rows, *made, labels, teacher), f"models/{one}"))
    line.append(Stage("evaluate", evaluate, ("generations", "models"), "reports"))
    return {stage.name: stage for stage in line}


def find(name: str) -> Stage:
    """The stage of this name. Raises InputError with the names that there are."""
    line = stages()
    if name not in line:
        raise InputError(f"There is no stage '{name}': the stages are {', '.join(line)}.")
    return line[name]
