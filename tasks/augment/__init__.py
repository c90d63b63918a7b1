"""augment: label-preserving children of the labelled training rows, each with its parent and its recipe.

python -m tasks.augment
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from tasks import images, texts
from tasks.augment import sentences
from tasks.augment.catalogue import CannotChange
from tasks.augment.makers import Made, Maker, Resources, Step, maker_of, steps_of
from tasks.errors import InputError
from tasks.generation import GenerationWriter, Row, identify, payloads, read, read_manifest, recipe_json
from tasks.learners.device import keep_freed_memory
from tasks.learners.encoded_features import EncodedFeatures
from tasks.learners.features import FeatureMaker
from tasks.learners.model import single_threaded
from tasks.learners.saving import make_features
from tasks.params import AugmentParams, Facts
from tasks.processes import in_processes
from tasks.progress import Progress, counted, silent
from tasks.randomness import derived_seed, generator

BY_EFFORT = {"quick": 1, "normal": 2, "thorough": 5}
ENOUGH = 20_000  # children in all where params leave their number open: more labelled rows need fewer of them
MOST_BALANCED = 10  # times as many children of a rare class's row as of the commonest one's
AT_ONCE, MEGAPIXELS_AT_ONCE = 64, 8.0  # children, and what they hold, that one process makes before it hands them over
Parent = tuple[str, Any, Mapping[Hashable, Any], range]  # id, payload, columns, and its children's numbers
MOST_NEAR, LEAST_NEAR = 5, 0.5  # words for one, and their cosine, that an encoder's vocabulary gives


def augment(
    params: AugmentParams,
    facts: Facts,
    *,
    collected: Path,
    validated: Path,
    output: Path,
    data: Path | None = None,
    features: FeatureMaker | None = None,
    progress: Progress = silent,
) -> None:
    """Writes `generations/augment`; children take split, fold, group, label and weight from their parent.

    data: where a thesaurus and the user's own functions lie; features: not fitted yet, for `policy: auto` and the label guard; None: as without an encoder.
    """
    if facts.modality == "image" and (params.thesaurus or params.protect or params.masked_lm):
        raise InputError(
            "params.yaml: augment.thesaurus, augment.masked_lm and augment.protect are of texts, but this is an image workspace: remove them."
        )
    classes = read_manifest(validated)["classes"]
    rows = read(validated)
    parents = rows[(rows["split"] == "train") & rows["label"].notna()].set_index("id")
    own_features = features or make_features(None, None, facts, None)
    filler = _filler(params, data)
    context = replace(_context(params, facts, parents, data, own_features), fill=filler.fill if filler else None)
    resources = Resources.of(data, context, filler.key if filler else None)
    judges = Judges(parents, classes, collected, own_features, params, facts, progress)
    notes: dict[str, Any] = {}
    policy, children = params.policy, children_of_each(len(parents), params, facts)
    if policy == "auto":
        found, why = judges.screened(resources)
        policy, notes["screening"] = (
            found.policy if found else None,
            found.as_json() if found else {"cannot_screen": why},
        )
        if found and params.children is None:
            children = min(found.children, ENOUGH // max(1, len(parents)))
    assert policy != "auto"  # noqa: S101  (it was looked for above)
    steps = steps_of(policy, facts, resources.own)
    of_class = balanced(Counter(parents["label"]), children if steps else 0, params.balance if steps else 0.0)
    hard = judges.hardness() if any(of_class.values()) else {}
    many = favouring_hard(parents["label"].map(of_class), hard, params.hard, facts.seed)
    total = sum(many.values())
    families = Families(steps, params, facts, resources)
    guard = judges.guard() if total else None
    known = Known(rows, facts)
    with GenerationWriter(output, stage="augment", modality=facts.modality) as writer:
        source = (
            (name, payload, parents.loc[name].to_dict(), range(many[name]))
            for name, payload in (payloads([collected], parents.index) if total else ())
        )
        done = 0
        for row, same, reason in _made(families, source, guard):
            done += 1
            _write(writer, row, reason or known.reason(row, same))
            progress("make children", done, total)
        for row, same in judges.misleading():
            total += 1
            _write(writer, row, known.reason(row, same))
        if params.hard and not hard:
            notes["hard"] = "nobody could say which rows are hard"
        if params.balance:
            notes["class_shares"] = _shares(parents["label"], writer)
        if done:
            notes["policy"] = [{one.name: dict(one.arguments)} for one in steps]
        writer.close(rows_in=total, classes=classes, children_a_row=children, **notes)


def _write(writer: GenerationWriter, row: Row, reason: str | None) -> None:
    if reason:
        writer.reject(row, reason)
    else:
        writer.keep(row)


class Known:
    """What a child may not be: a copy of a row that is there, or of another child. It would be learnt from where its twin judges, or count twice.

    Pictures are the same where their pixels are, texts where only case, punctuation and blanks differ.
    """

    def __init__(self, rows: pd.DataFrame, facts: Facts) -> None:
        self._of_text = facts.modality == "text"
        held_out = rows["split"].isin(["test", "validation"])
        keys = [texts.normalised(one) for one in rows["text"]] if self._of_text else rows["id"].tolist()
        self._rows: dict[str, str] = dict(zip(keys, rows["id"], strict=True))
        self._held_out = {key for key, out in zip(keys, held_out, strict=True) if out}
        self._children: set[tuple[str, str | None]] = set()

    def reason(self, row: Row, same: str) -> str | None:
        """Why the child cannot stay; None where it can, and is known from now on. same: the hash of its content alone."""
        if same == row.parents[0]:
            return "unchanged"
        if self._of_text and not row.payload:
            return "empty"
        key = texts.normalised(str(row.payload)) if self._of_text else same
        if key in self._held_out:
            return "near_duplicate_of_test"
        if key in self._rows and self._rows[key] != row.parents[0]:
            return "copy_of_another_row"
        if (key, row.label) in self._children:
            return "exact_duplicate"
        self._children.add((key, row.label))
        return None


def children_of_each(parents: int, params: AugmentParams, facts: Facts) -> int:
    """How many children each row gets."""
    if params.children is not None:
        return params.children
    return min(BY_EFFORT[facts.effort], ENOUGH // max(1, parents))


def balanced(rows: Mapping[str, int], children: int, balance: float) -> dict[str, int]:
    """Children a row by class: of the commonest class `children`; of a rarer one more, so that with balance 1 all classes hold about as many rows as
    the commonest with its children does, and with 0 every row has the same number. At most MOST_BALANCED times as many.
    """
    most = max(rows.values(), default=0)
    wanted = {label: (1 + children) * (most / many) ** balance - 1 for label, many in rows.items()}
    limit = MOST_BALANCED * max(1, children)
    return {label: min(round(one), limit) for label, one in wanted.items()}


def favouring_hard(many: pd.Series, hardness: Mapping[str, float], hard: float, seed: int) -> dict[str, int]:
    """Children by row: with `hard` 0 as many as given; with 1 none of its class's easiest row, and twice as many of its hardest. many: by id.

    What is left of a whole number is a chance, drawn by the row's name.
    """
    if not hardness or not hard:
        return {name: int(children) for name, children in many.items()}
    wanted = {name: children * (1 + hard * (2 * hardness[name] - 1)) for name, children in many.items()}
    return {name: int(one) + int(generator(seed, "hard", name).random() < one % 1) for name, one in wanted.items()}


def _shares(parents: pd.Series, writer: GenerationWriter) -> dict[str, dict[str, float]]:
    """Each class's share of the training rows, before and after."""
    before = Counter(parents)
    after = before + Counter(dict.fromkeys(before, 0))
    for (_, label, _), rows in writer.kept.items():
        after[label] += rows
    return {
        when: {label: round(rows / counts.total(), 6) for label, rows in sorted(counts.items())}
        for when, counts in (("before", before), ("after", after))
    }


def _filler(params: AugmentParams, data: Path | None) -> Any:
    """What puts words where masks are; None where params name no model. Raises InputError where no operation would ask for it."""
    if params.masked_lm is None:
        return None
    named = {one if isinstance(one, str) else next(iter(one)) for one in params.policy or ()}
    if params.policy != "auto" and "mask" not in named:
        raise InputError(
            "params.yaml: augment.masked_lm fills the masks of `mask`: name it in augment.policy, as in [mask]."
        )
    from tasks.learners.masked_words import MaskedWords

    return MaskedWords(params.masked_lm, data.parent if data else Path.cwd())


def _context(
    params: AugmentParams, facts: Facts, parents: pd.DataFrame, data: Path | None, features: FeatureMaker
) -> sentences.Context:
    """What operations on texts draw from: the user's thesaurus, else the words that lie near in the encoder's vocabulary."""
    if facts.modality != "text":
        return sentences.Context()
    near: Mapping[str, Any] = {}
    words = sorted({word for text in parents["text"] for word in str(text).lower().split() if word.isalpha()})
    named = (
        {one if isinstance(one, str) else next(iter(one)) for one in params.policy or ()}
        if params.policy != "auto"
        else {"synonym"}
    )
    if params.thesaurus is not None and data is not None:
        from tasks.augment.thesaurus import read_thesaurus

        near = read_thesaurus(data / params.thesaurus)
    elif isinstance(features, EncodedFeatures) and named & {"synonym", "insert"}:
        near = features.encoder.near_words(words, MOST_NEAR, LEAST_NEAR)
    return sentences.Context(near, words, frozenset(word.lower() for one in params.protect for word in one.split()))


@dataclass(frozen=True)
class Judges:
    """What asks models of the other folds: the screening, the label guard, and what misleads them."""

    parents: pd.DataFrame
    classes: list[str]
    collected: Path
    features: FeatureMaker
    params: AugmentParams
    facts: Facts
    progress: Progress

    @property
    def _folds(self) -> int:
        return int(self.parents["fold"].nunique())

    def _drawn(self, at_most: int) -> Any:
        from tasks.augment.teaching import read_parents

        return read_parents(
            self.parents, self.classes, self.collected, self.features, at_most, self.facts.seed, self.progress
        )

    def screened(self, resources: Resources) -> tuple[Any, str]:
        """Which operations help; None, and why, where that cannot be told."""
        from tasks.augment.screening import ROWS, CannotScreen, screen

        try:
            with single_threaded():
                drawn = self._drawn(ROWS[self.facts.effort])
                return screen(drawn, self.params.weight, self.facts, resources, self.progress), ""
        except CannotScreen as error:
            return None, str(error)

    def hardness(self) -> Mapping[str, float]:
        """How hard rows are to models of the other folds; empty where nobody asks, or nobody could say."""
        if not self.params.hard or self._folds < 2:
            return {}
        from tasks.augment.teaching import hardness

        with single_threaded():
            return hardness(self._drawn(len(self.parents)))

    def guard(self) -> Any:
        """Who says which children changed their label; None where params want nobody, or nobody could."""
        if not self.params.label_guard or self._folds < 2:
            return None
        from tasks.augment.teaching import Guard

        with single_threaded():
            return Guard(self._drawn(len(self.parents)))

    def misleading(self) -> Iterator[tuple[Row, str]]:
        """Adversarial children of as many rows as params ask for, with the hash of their content alone."""
        params, facts = self.params, self.facts
        if params.adversarial and facts.modality != "image":
            raise InputError(
                "params.yaml: augment.adversarial changes pictures, but this is a text workspace: remove it."
            )
        if not params.adversarial or self._folds < 2:
            return
        from tasks.augment.adversarial import misleading

        drawn = self._drawn(len(self.parents))
        chances = [generator(facts.seed, "adversarial", one).random() for one in drawn.ids]
        chosen = [row for row, chance in enumerate(chances) if chance < params.adversarial]
        with single_threaded():
            found = misleading(drawn, chosen, params.adversarial_way, params.adversarial_levels, facts.max_megapixels)
            for row, pixels, told in counted(found, self.progress, "mislead models", len(chosen)):
                name, recipe = drawn.ids[row], recipe_json(params.adversarial_way, **told)
                made = Made(images.encode(pixels), recipe, images.content(pixels))
                yield _row(name, self.parents.loc[name].to_dict(), made, params), identify(made.content)


@dataclass(frozen=True)
class Families:
    """Makes all children of some parents. It may be sent to another process. Raises InputError for a policy that cannot be built."""

    steps: Sequence[Step]
    params: AugmentParams
    facts: Facts
    resources: Resources

    def __post_init__(self) -> None:
        keep_freed_memory()
        object.__setattr__(self, "_make", maker_of(self.steps, self.facts, self.resources))

    def __reduce__(self) -> Any:  # transforms are built where they are used
        return Families, (self.steps, self.params, self.facts, self.resources)

    def __call__(self, parents: Sequence[Parent]) -> list[tuple[Row, str, str | None]]:
        """Every child, in its parents' order, the hash of its content alone, and why it cannot be. parents: see Parent."""
        return [
            self._child(name, payload, known, number) for name, payload, known, numbers in parents for number in numbers
        ]

    def _child(
        self, parent: str, payload: Any, known: Mapping[Hashable, Any], number: int
    ) -> tuple[Row, str, str | None]:
        try:
            make: Maker = self._make  # type: ignore[attr-defined]  # set once, in __post_init__
            made, reason = make(payload, derived_seed(self.facts.seed, "augment", parent, number)), None
        except CannotChange:
            made, reason = Made(payload, None, f"{parent} {number}".encode()), "cannot_be_changed"
        return _row(parent, known, made, self.params), identify(made.content), reason


def _made(families: Families, parents: Iterator[Parent], guard: Any) -> Iterator[tuple[Row, str, str | None]]:
    """Every child, in its parents' order, on as many cores as it is worth, and whether the guard wants it. Texts are quick, or wait for a model."""
    pieces = _pieces(parents)
    of_pictures = families.facts.modality == "image"
    for children in in_processes(families, pieces) if of_pictures else map(families, pieces):
        asked = [(row.parents[0], row.payload) for row, _, reason in children if reason is None] if guard else []
        changed = iter(guard.changed(asked) if asked else ())
        for row, same, reason in children:
            yield row, same, reason or ("label_changed" if guard and next(changed) else None)


def _pieces(parents: Iterable[Parent]) -> Iterator[list[Parent]]:
    """Parents in pieces of so many children, or megapixels, at most; the first are small, so that it is soon known how long they take."""
    piece, children, held, most = list[Parent](), 0, 0.0, 1
    for name, payload, known, numbers in parents:
        size = images.megapixels(payload) if isinstance(payload, bytes) else 0.0
        for number in numbers:
            if piece and (children >= most or held + size > MEGAPIXELS_AT_ONCE):
                yield piece
                piece, children, held, most = [], 0, 0.0, min(2 * most, AT_ONCE)
            if piece and piece[-1][0] == name:
                piece[-1] = (name, payload, known, range(piece[-1][3].start, number + 1))
            else:
                piece.append((name, payload, known, range(number, number + 1)))
            children, held = children + 1, held + size
    if piece:
        yield piece


def _row(parent: str, known: Mapping[Hashable, Any], made: Made, params: AugmentParams) -> Row:
    """A child as the record has it: all but its content is its parent's."""
    return Row(
        id=identify(made.content, [parent], made.recipe),
        split="train",
        fold=None if pd.isna(known["fold"]) else int(known["fold"]),
        label=known["label"],
        label_source=known["label_source"],
        weight=float(known["weight"]) * params.weight,
        parents=[parent],
        recipe=made.recipe,
        origin=known["origin"],
        licence=known["licence"],
        attribution=known["attribution"],
        group=known["group"],
        payload=made.payload,
    )
