"""The keys of the review page: the defaults, and their remapping by `review: keys:` in params.yaml.

A key is named by its `KeyboardEvent.code`, such as `KeyS`, `Digit1` or `ArrowLeft`, or by its character, such as `?`.
The page compares letters with what is printed on the key, so that `KeyZ` is the key Z on every Latin keyboard.
`ControlLeft`, `ControlRight`, `ShiftLeft` and `ShiftRight` act when they are released and no other key was pressed.
"""

from __future__ import annotations

import difflib
import string
from collections.abc import Mapping, Sequence

from seedling.errors import InputError

CLASSES = "classes"
DEFAULT_KEYS: Mapping[str, tuple[str, ...]] = {
    "accept": ("ControlLeft", "KeyA", "ArrowRight"),
    "reject": ("ControlRight", "KeyX", "ArrowLeft"),
    "skip": ("KeyS", "Space"),
    "unsure": ("KeyU",),
    "none_of_these": ("KeyN",),
    "bad": ("KeyB",),
    "flag": ("KeyF",),
    "accept_rest": ("Enter",),
    "undo": ("KeyZ", "Backspace"),
    "redo": ("KeyY",),
    "zoom": ("KeyE",),
    "contrast": ("KeyC",),
    "flicker": ("KeyV",),
    "panel": ("KeyI",),
    "order": ("KeyO",),
    "mode": ("KeyM",),
    "search": ("/", "KeyT"),
    "edit_classes": ("F2",),
    "theme": ("KeyD",),
    "help": ("?", "KeyH"),
}
DIGITS = tuple(f"Digit{digit}" for digit in (*range(1, 10), 0))
LETTERS = tuple(f"Key{letter}" for letter in string.ascii_uppercase)
MODIFIERS = ("ControlLeft", "ControlRight", "ShiftLeft", "ShiftRight")
NAMED_KEYS = (
    *("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown", "Insert", "Delete"),
    *("Enter", "Space", "Backspace"),
    *(f"F{number}" for number in range(1, 13)),
)
CODES = frozenset((*DIGITS, *LETTERS, *MODIFIERS, *NAMED_KEYS))
CHARACTER_OF_CODE = {
    **{"Minus": "-", "Equal": "=", "BracketLeft": "[", "BracketRight": "]", "Backslash": "\\", "Semicolon": ";"},
    **{"Quote": "'", "Comma": ",", "Period": ".", "Slash": "/", "Backquote": "`"},
}
FIX_EXAMPLE = "as in `review: {keys: {skip: [KeyJ, Space]}}`"


def key_bindings(remapping: Mapping[str, str | Sequence[str]] | None = None) -> dict[str, list[str]]:
    """Return the keys of every action, and those of the classes in their order.

    An action in `remapping` has only the keys that are stated there; an empty list leaves it to its button. Unless
    `classes` are stated, they get the digits and then the letters that no action uses.

    Raises InputError for an unknown action, a key that does not exist, and a key with two actions.
    """
    changed = {_known_action(action): _normalized_keys(action, keys) for action, keys in (remapping or {}).items()}
    bindings = {action: changed.get(action, list(keys)) for action, keys in DEFAULT_KEYS.items()}
    if CLASSES in changed:
        bindings[CLASSES] = changed[CLASSES]
        _check_clashes(bindings)
    else:
        _check_clashes(bindings)
        used = {key for keys in bindings.values() for key in keys}
        bindings[CLASSES] = [key for key in (*DIGITS, *LETTERS) if key not in used]
    return bindings


def _known_action(action: str) -> str:
    actions = (*DEFAULT_KEYS, CLASSES)
    if action not in actions:
        similar = difflib.get_close_matches(str(action), actions, n=1, cutoff=0.5)
        hint = f"did you mean '{similar[0]}'?" if similar else f"the actions are {', '.join(actions)}."
        raise InputError(f"Unknown action '{action}' in `review.keys` of params.yaml: {hint}")
    return action


def _normalized_keys(action: str, keys: str | Sequence[str]) -> list[str]:
    """The keys without repetition: letters and digits as codes, punctuation keys as characters."""
    listed = [keys] if isinstance(keys, str) else keys
    return list(dict.fromkeys(_normalized_key(action, key) for key in listed))


def _normalized_key(action: str, key: str) -> str:
    name = CHARACTER_OF_CODE.get(key, key) if isinstance(key, str) else str(key)
    if len(name) == 1:
        if name == " ":
            return "Space"
        if name in string.ascii_letters:
            return f"Key{name.upper()}"
        if name in string.digits:
            return f"Digit{name}"
        if name.isprintable():
            return name
    if name not in CODES:
        similar = difflib.get_close_matches(name, sorted(CODES | set(CHARACTER_OF_CODE)), n=1, cutoff=0.5)
        hint = f"did you mean '{similar[0]}'?" if similar else "use a code such as KeyS, Digit1, Space or ControlLeft."
        raise InputError(f"Unknown key '{key}' for '{action}' in `review.keys` of params.yaml: {hint}")
    return name


def _check_clashes(bindings: Mapping[str, Sequence[str]]) -> None:
    action_of_key: dict[str, str] = {}
    for action, keys in bindings.items():
        for key in keys:
            other = action_of_key.setdefault(key, action)
            if other != action:
                raise InputError(
                    f"The key '{key}' has two actions in `review.keys` of params.yaml, '{other}' and '{action}': "
                    f"state other keys for one of them, {FIX_EXAMPLE}."
                )
