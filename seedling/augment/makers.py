"""What makes a child of a row: the policy of params.yaml, brought to names and arguments, and carried out."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seedling.augment import catalog, sentences
from seedling.config.params import WorkspaceConfig
from seedling.dataset.generation import recipe_json
from seedling.errors import InputError
from seedling.media import images, texts
from seedling.media.images import Pixels
from seedling.plugins import AUGMENTING, plugin_functions
from seedling.stats.randomness import derived_seed

FILE, ENTRY_POINTS = AUGMENTING
# They stand in a recipe that is written once: to write a policy's JSON takes as long as a small image's changes.
SEED, APPLIED = "<seed>", "<applied>"
SURROGATE = re.compile("[\ud800-\udfff]")
SHORT = (",", ":")  # JSON without blanks
OWN = "own"  # a user's function: {"own": {"name": …}}

DEFAULT_IMAGES: tuple[Mapping[str, Any], ...] = (
    # Changes that keep the label of nearly anything. No flips: a mirrored digit or letter is another one.
    {
        "Affine": {
            "rotate": [-10, 10],
            "translate_percent": [-0.08, 0.08],
            "scale": [0.9, 1.1],
            "shear": [-5, 5],
            "border_mode": catalog.REFLECTED,
            "p": 1.0,
        }
    },
    {"RandomBrightnessContrast": {"brightness_limit": 0.2, "contrast_limit": 0.2, "p": 0.5}},
    {"GaussianNoise": {"std_range": [0.01, 0.05], "p": 0.3}},
)


class Step(NamedTuple):
    """A transform, a text operation or a user's function (`own`), its arguments, and what it is called in params.yaml."""

    name: str
    arguments: Mapping[str, Any]
    shown: str


class Made(NamedTuple):
    """A child's payload, its recipe, and what its id is the hash of."""

    payload: Any
    recipe: str | None
    content: bytes


class Maker(NamedTuple):
    """read: of a parent's payload, once for all of its children; make: of what was read and a seed."""

    read: Callable[[Any], Any]
    make: Callable[[Any, int], Made]

    def __call__(self, payload: Any, seed: int) -> Made:
        """One child."""
        return self.make(self.read(payload), seed)


@dataclass(frozen=True)
class Resources:
    """What steps may need beside the row. own: the user's functions; context: of text operations; data: where the functions were found;
    filled_by: the key of the masked language model; plugin: their file in data/.
    """

    own: Mapping[str, Callable[..., Any]]
    context: sentences.Context
    data: Path | None = None
    filled_by: str | None = None
    plugin: str | None = None

    @classmethod
    def of(
        cls,
        data: Path | None,
        context: sentences.Context | None = None,
        filled_by: str | None = None,
        plugin: str | None = None,
    ) -> Resources:
        """Those of a workspace's data/. plugin: the file in it that params.yaml names. Raises InputError where that cannot be imported."""
        own = plugin_functions(data, plugin, ENTRY_POINTS, "augment.plugin")
        return cls(own, context or sentences.Context(), data, filled_by, plugin)

    def __reduce__(self) -> Any:  # in another process the user's functions are imported anew
        return Resources.of, (self.data, self.context, self.filled_by, self.plugin)


def steps_of(policy: Sequence[Any] | None, facts: WorkspaceConfig, own: Mapping[str, Any]) -> list[Step]:
    """The policy with every name looked up and every strength made arguments. Raises InputError for a name that is none."""
    if policy is None:
        policy = DEFAULT_IMAGES if facts.modality == "image" else sentences.DEFAULT_POLICY
    found: list[Step] = []
    for entry in policy:
        for name, given in ({entry: None} if isinstance(entry, str) else entry).items():
            found += _steps(name, given, facts, own)
    return found


def _steps(name: str, given: Any, facts: WorkspaceConfig, own: Mapping[str, Any]) -> list[Step]:
    known = catalog.OPERATIONS if facts.modality == "image" else sentences.OPERATIONS
    if name in own and name in known:
        raise InputError(f"data/{FILE}: there is an operation '{name}' already: give your function another name.")
    if name == OWN and isinstance(given, Mapping) and "name" in given:  # as a recipe has it
        return [Step(OWN, given, str(given["name"]))]
    if name in own:
        allowed = {"p"} if facts.modality == "image" else set()
        return [Step(OWN, {"name": name, **_told(name, given, allowed)}, name)]
    if facts.modality == "text":
        if name not in known:
            raise InputError(_unknown(name, [*known, *own]))
        told = _told(name, given, {"share"}, "share")
        if told.get("share") == 0:
            raise InputError(
                f"params.yaml: augment.policy: {name}: a share of 0 changes nothing: leave the operation out."
            )
        return [Step(name, {"share": told.get("share", sentences.MEDIUM)}, name)]
    if name not in known:
        if not (given is None or isinstance(given, Mapping)):
            raise InputError(
                f"params.yaml: augment.policy: {name}: albumentations' transforms take arguments, as in {{{name}: {{p: 0.5}}}}, not {given!r}."
            )
        return [Step(name, given or {}, name)]  # building it says whether there is such a one
    graded = catalog.OPERATIONS[name].graded
    told = _told(name, given, {"strength", "p"} if graded else {"p"}, "strength" if graded else None)
    entry = catalog.OPERATIONS[name].entry(told.get("strength", catalog.MEDIUM))
    return [Step(one, {**arguments, "p": told.get("p", 1.0)}, name) for one, arguments in entry.items()]


def _told(name: str, given: Any, allowed: set[str], alone: str | None = None) -> dict[str, float]:
    """What params say of an operation, numbers from 0 to 1. alone: what a number without a name is."""
    if given is None:
        return {}
    if isinstance(given, int | float) and alone is not None:
        given = {alone: given}
    if not isinstance(given, Mapping) or {*given} - allowed:
        takes = " and ".join(sorted(allowed, reverse=True)) or "nothing"
        more = ", ".join(sorted({*given} - allowed)) if isinstance(given, Mapping) else repr(given)
        hint = (
            f": {{{name}: {{p: {given}}}}} is its chance" if "p" in allowed and isinstance(given, int | float) else ""
        )
        raise InputError(f"params.yaml: augment.policy: {name} takes {takes}, not {more}{hint}.")
    return {one: _between(name, value) for one, value in given.items()}


def _between(name: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 1:
        raise InputError(f"params.yaml: augment.policy: {name}: a number from 0 to 1 is needed, not {given!r}.")
    return float(given)


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return (
        f"params.yaml: augment.policy: there is no operation '{name}'.{f' Did you mean {near[0]}?' if near else ''} "
        f"There is {', '.join(known)}. For functions of your own name their file in data/, as in `plugin: {FILE}`, beside the policy."
    )


def maker_of(steps: Sequence[Step], facts: WorkspaceConfig, resources: Resources) -> Maker:
    """Images go through all steps in turn, each with its own chance; a text through one of them, drawn. Raises InputError for steps that cannot be built."""
    if missing := [one.shown for one in steps if one.name == OWN and one.arguments["name"] not in resources.own]:
        raise InputError(
            f"There is no function '{missing[0]}' in the file that augment.plugin names, or among installed packages."
        )
    if facts.modality == "text":
        return Maker(str, partial(_of_text, list(steps), resources))
    from seedling.augment.image_policy import PolicyTransform

    policy = [{one.name: dict(one.arguments)} for one in steps]
    transform = PolicyTransform(policy, resources.own, [one.shown for one in steps])
    recipe = recipe_json("transforms", policy=policy, seed=SEED, applied=[APPLIED])
    read = partial(images.decode, max_megapixels=facts.max_megapixels)
    return Maker(read, partial(_of_image, transform, _around(recipe)))


def _around(recipe: str) -> tuple[str, ...]:
    """A recipe's text before, between and after what differs from child to child, which stand in their keys' order."""
    before, rest = recipe.split(f'["{APPLIED}"]')
    return before, *rest.split(f'"{SEED}"')


def _of_image(transform: Any, recipe: tuple[str, ...], parent: Pixels, seed: int) -> Made:
    pixels, applied = transform.apply(parent.copy(), seed)  # a transform may change what it is given
    if images.is_blank(pixels) and not images.is_blank(parent):
        raise catalog.MadeBlank
    before, between, after = recipe
    told = f"{before}{json.dumps(applied, separators=SHORT)}{between}{seed}{after}"
    return Made(images.encode(pixels), told, images.content(pixels))


def _of_text(steps: list[Step], resources: Resources, payload: str, seed: int) -> Made:
    first = derived_seed(seed, "operation") % len(steps)
    for step in [*steps[first:], *steps[:first]]:  # where one can do nothing (no word has a synonym) the next one may
        made = _by_step(step, resources, payload, seed)
        if made.payload != payload:
            break
    return made


def _by_step(step: Step, resources: Resources, payload: str, seed: int) -> Made:
    name, arguments, _ = step
    if name == OWN:
        own = arguments["name"]
        try:
            changed = resources.own[own](payload, np.random.default_rng(seed))
        except Exception as error:
            raise InputError(f"data/{FILE}: '{own}' stopped at a text: {type(error).__name__}: {error}") from error
        if not isinstance(changed, str):
            raise InputError(f"data/{FILE}: '{own}' gave {type(changed).__name__}, not a text.")
        if SURROGATE.search(changed):
            raise InputError(
                f"data/{FILE}: '{own}' gave a text with half of a character (a surrogate), which no file can hold."
            )
        text = texts.clean(changed)
    else:
        text = sentences.change(payload, name, arguments["share"], seed, resources.context)
    filled = {"filled_by": resources.filled_by} if name == "mask" and resources.filled_by else {}
    return Made(text, recipe_json(name, **arguments, **filled, seed=seed), texts.content(text))
