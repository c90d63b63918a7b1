"""The policy of params.yaml, resolved to steps with arguments, and applied to rows."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from seedling.augment import catalog, sentences
from seedling.config.params import WorkspaceConfig
from seedling.dataset.generation import recipe_json
from seedling.errors import InputError
from seedling.media import images, texts
from seedling.media.images import Pixels
from seedling.plugins import AUGMENTING_GROUP, defined_in, plugin_functions
from seedling.stats.randomness import derived_seed
from seedling.workspace import AUGMENTING_FILE

# Placeholders in a recipe that is serialized once: to serialize a policy takes as long as to augment a small image.
SEED, APPLIED = "<seed>", "<applied>"
SURROGATE = re.compile("[\ud800-\udfff]")
JSON_SEPARATORS = (",", ":")  # no whitespace
Plugins = Mapping[str, Callable[..., Any]]  # the user's functions by name
PLUGIN_KEY = "own"  # a user's function in a recipe: {"own": {"name": …}}

DEFAULT_IMAGES: tuple[catalog.Entry, ...] = (
    # These preserve nearly all labels. No flips: a mirrored digit or letter is another one.
    {
        "Affine": {
            "rotate": [-10, 10],
            "translate_percent": [-0.08, 0.08],
            "scale": [0.9, 1.1],
            "shear": [-5, 5],
            "border_mode": catalog.REFLECT_BORDER,
            "p": 1.0,
        }
    },
    {"RandomBrightnessContrast": {"brightness_limit": 0.2, "contrast_limit": 0.2, "p": 0.5}},
    {"GaussianNoise": {"std_range": [0.01, 0.05], "p": 0.3}},
)


class Step(NamedTuple):
    """A transform, a text operation or a plugin (`own`), its arguments, and its name in params.yaml."""

    name: str
    arguments: catalog.Arguments
    display_name: str


class Augmented(NamedTuple):
    """An augmented payload, its recipe, and the content that is hashed to its id."""

    payload: bytes | str
    recipe: str | None
    content: bytes


class Maker(NamedTuple):
    """Two functions that augment a row.

    read: decodes a parent's payload, once for all of its augmented rows; make: augments the result, for a seed.
    """

    read: Callable[[Any], Any]
    make: Callable[[Any, int], Augmented]

    def __call__(self, payload: Any, seed: int) -> Augmented:
        """Read and augment one payload."""
        return self.make(self.read(payload), seed)


@dataclass(frozen=True)
class Resources:
    """What steps may need besides the row.

    plugins: the user's functions by name; context: for text operations; data: the folder of the plugin file;
    filled_by: the key of the masked language model; plugin_file: the name of the file in data/.
    """

    plugins: Plugins
    context: sentences.Context
    data: Path | None = None
    filled_by: str | None = None
    plugin_file: str | None = None

    @classmethod
    def of(
        cls,
        data: Path | None,
        context: sentences.Context | None = None,
        filled_by: str | None = None,
        plugin_file: str | None = None,
    ) -> Resources:
        """Load the resources of a workspace's data/. Raises InputError if the plugin file cannot be imported."""
        plugins = plugin_functions(data, plugin_file, AUGMENTING_GROUP, "augment.plugin")
        return cls(plugins, context or sentences.Context(), data, filled_by, plugin_file)

    def __reduce__(self) -> Any:  # another process imports the plugins itself
        return Resources.of, (self.data, self.context, self.filled_by, self.plugin_file)


def steps_of(policy: Sequence[Any] | None, config: WorkspaceConfig, plugins: Plugins) -> list[Step]:
    """Resolve each name and strength of the policy to steps with arguments. Raises InputError for an unknown name."""
    if policy is None:
        policy = DEFAULT_IMAGES if config.modality == "image" else sentences.DEFAULT_POLICY
    steps: list[Step] = []
    for entry in policy:
        for name, arguments in ({entry: None} if isinstance(entry, str) else entry).items():
            steps += _resolve(name, arguments, config, plugins)
    return steps


def _resolve(name: str, value: Any, config: WorkspaceConfig, plugins: Plugins) -> list[Step]:
    """Resolve one entry of a policy. value: its arguments, a number, or None."""
    operations = catalog.OPERATIONS if config.modality == "image" else sentences.OPERATIONS
    if name in plugins and name in operations:
        raise InputError(
            f"{defined_in(plugins[name])}: '{name}' is the name of a built-in operation: rename your function."
        )
    if name == PLUGIN_KEY and isinstance(value, Mapping) and "name" in value:  # as in a recipe
        return [Step(PLUGIN_KEY, value, str(value["name"]))]
    if name in plugins:
        allowed = {"p"} if config.modality == "image" else set()
        return [Step(PLUGIN_KEY, {"name": name, **_numbers(name, value, allowed)}, name)]
    if config.modality == "text":
        return [_text_step(name, value, plugins)]
    return _image_steps(name, value)


def _text_step(name: str, value: Any, plugins: Plugins) -> Step:
    if name not in sentences.OPERATIONS:
        raise InputError(_unknown_operation(name, [*sentences.OPERATIONS, *plugins]))
    numbers = _numbers(name, value, {"share"}, "share")
    if numbers.get("share") == 0:
        raise InputError(f"params.yaml: augment.policy: {name}: a share of 0 changes nothing: remove the operation.")
    return Step(name, {"share": numbers.get("share", sentences.DEFAULT_SHARE)}, name)


def _image_steps(name: str, value: Any) -> list[Step]:
    if name not in catalog.OPERATIONS:
        if not (value is None or isinstance(value, Mapping)):
            raise InputError(
                f"params.yaml: augment.policy: {name}: albumentations transforms take arguments, as in "
                f"{{{name}: {{p: 0.5}}}}, not {value!r}."
            )
        return [Step(name, value or {}, name)]  # building the transform reports an unknown name
    operation = catalog.OPERATIONS[name]
    allowed = {"strength", "p"} if operation.graded else {"p"}
    numbers = _numbers(name, value, allowed, "strength" if operation.graded else None)
    entry = operation.entry(numbers.get("strength", catalog.DEFAULT_STRENGTH))
    return [Step(transform, {**arguments, "p": numbers.get("p", 1.0)}, name) for transform, arguments in entry.items()]


def _numbers(name: str, value: Any, allowed: set[str], default_key: str | None = None) -> dict[str, float]:
    """Return an operation's arguments in params, from 0 to 1. default_key: the meaning of a number without a name."""
    if value is None:
        return {}
    if isinstance(value, int | float) and default_key is not None:
        value = {default_key: value}
    if not isinstance(value, Mapping) or {*value} - allowed:
        takes = " and ".join(sorted(allowed, reverse=True)) or "no arguments"
        excess = ", ".join(sorted({*value} - allowed)) if isinstance(value, Mapping) else repr(value)
        is_probability = "p" in allowed and isinstance(value, int | float)
        hint = f": write {{{name}: {{p: {value}}}}} for a probability" if is_probability else ""
        raise InputError(f"params.yaml: augment.policy: {name} takes {takes}, not {excess}{hint}.")
    return {key: _unit_number(name, number) for key, number in value.items()}


def _unit_number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"params.yaml: augment.policy: {name} takes a number from 0 to 1, not {value!r}.")
    return float(value)


def _unknown_operation(name: str, operations: Sequence[str]) -> str:
    matches = difflib.get_close_matches(name, operations, 1)
    suggestion = f" Did you mean {matches[0]}?" if matches else ""
    return (
        f"params.yaml: augment.policy: unknown operation '{name}'.{suggestion} The operations are "
        f"{', '.join(operations)}. To use a function of your own, name its file in data/ beside the policy: "
        f"`plugin: {AUGMENTING_FILE}`."
    )


def maker_of(steps: Sequence[Step], config: WorkspaceConfig, resources: Resources) -> Maker:
    """Build the maker of the steps. Raises InputError if a step cannot be built.

    An image goes through all steps in order, each with its own probability; a text through one step, drawn at random.
    """
    plugin_names = [str(step.arguments["name"]) for step in steps if step.name == PLUGIN_KEY]
    if missing := [name for name in plugin_names if name not in resources.plugins]:
        raise InputError(
            f"Unknown function '{missing[0]}': it is neither in the file that augment.plugin names nor in an installed "
            "package."
        )
    if config.modality == "text":
        return Maker(str, partial(_augment_text, list(steps), resources))
    from seedling.augment.image_policy import PolicyTransform

    policy = [{step.name: dict(step.arguments)} for step in steps]
    transform = PolicyTransform(policy, resources.plugins, [step.display_name for step in steps])
    recipe = recipe_json("transforms", policy=policy, seed=SEED, applied=[APPLIED])
    read = partial(images.decode, max_megapixels=config.max_megapixels)
    return Maker(read, partial(_augment_image, transform, _split_recipe(recipe)))


def _split_recipe(recipe: str) -> tuple[str, ...]:
    """Return the recipe's text before, between and after its two placeholders, `applied` and `seed` in this order."""
    before, rest = recipe.split(f'["{APPLIED}"]')
    return before, *rest.split(f'"{SEED}"')


def _augment_image(transform: Any, recipe: tuple[str, ...], parent: Pixels, seed: int) -> Augmented:
    pixels, applied = transform.apply(parent.copy(), seed)  # a transform may change its input
    if images.is_blank(pixels) and not images.is_blank(parent):
        raise catalog.MadeBlank
    before, between, after = recipe
    filled = f"{before}{json.dumps(applied, separators=JSON_SEPARATORS)}{between}{seed}{after}"
    return Augmented(images.encode(pixels), filled, images.content(pixels))


def _augment_text(steps: list[Step], resources: Resources, payload: str, seed: int) -> Augmented:
    first = derived_seed(seed, "operation") % len(steps)
    for step in [*steps[first:], *steps[:first]]:  # a step may change nothing, such as when no word has a synonym
        augmented = _apply_text_step(step, resources, payload, seed)
        if augmented.payload != payload:
            break
    return augmented


def _apply_text_step(step: Step, resources: Resources, payload: str, seed: int) -> Augmented:
    name, arguments, _ = step
    if name == PLUGIN_KEY:
        text = _apply_plugin(str(arguments["name"]), resources, payload, seed)
    else:
        text = sentences.change(payload, name, cast("float", arguments["share"]), seed, resources.context)
    filled_by = {"filled_by": resources.filled_by} if name == "mask" and resources.filled_by else {}
    return Augmented(text, recipe_json(name, **arguments, **filled_by, seed=seed), texts.content(text))


def _apply_plugin(name: str, resources: Resources, payload: str, seed: int) -> str:
    plugin = resources.plugins[name]
    file = defined_in(plugin)
    try:
        changed = plugin(payload, np.random.default_rng(seed))
    except Exception as error:
        raise InputError(f"{file}: '{name}' failed on a text: {type(error).__name__}: {error}") from error
    if not isinstance(changed, str):
        raise InputError(f"{file}: '{name}' returned {type(changed).__name__}, not a string.")
    if SURROGATE.search(changed):
        raise InputError(f"{file}: '{name}' returned a text with a lone surrogate, which UTF-8 cannot encode.")
    return texts.clean(changed)
