"""The keys of the review page: complete defaults, remapping, and refused mistakes."""

from __future__ import annotations

import itertools

import pytest

from seedling.errors import InputError
from seedling.review.keys import DEFAULT_KEYS, key_bindings


def test_no_key_has_two_actions() -> None:
    """By default, with the keys of the classes."""
    keys = list(itertools.chain.from_iterable(key_bindings().values()))
    assert len(keys) == len(set(keys))


def test_classes_get_digits_then_letters_without_action() -> None:
    """Digits 1 to 9 and 0; of the letters, those that the table of actions leaves free."""
    free = [f"Key{letter}" for letter in "GJKLPQRW"]
    assert key_bindings()["classes"] == [*(f"Digit{digit}" for digit in "1234567890"), *free]


def test_control_keys_arrows_and_letters_accept_and_reject() -> None:
    """Left Control, A and the right arrow accept; right Control, X and the left arrow reject."""
    assert key_bindings()["accept"] == ["ControlLeft", "KeyA", "ArrowRight"]
    assert key_bindings()["reject"] == ["ControlRight", "KeyX", "ArrowLeft"]


def test_a_remapped_action_has_only_its_new_keys() -> None:
    """Its former letter becomes a key of the classes, and the new one is taken from them."""
    bindings = key_bindings({"skip": ["KeyJ"]})
    assert bindings["skip"] == ["KeyJ"]
    assert "KeyS" in bindings["classes"] and "KeyJ" not in bindings["classes"]
    assert {action: bindings[action] for action in DEFAULT_KEYS if action != "skip"} == {
        action: list(keys) for action, keys in DEFAULT_KEYS.items() if action != "skip"
    }


def test_two_actions_can_swap_their_keys() -> None:
    """Clashes are looked for after all changes."""
    bindings = key_bindings({"undo": ["KeyY"], "redo": ["KeyZ", "Backspace"]})
    assert (bindings["undo"], bindings["redo"]) == (["KeyY"], ["KeyZ", "Backspace"])


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["j"], ["KeyJ"]),
        (["J", "KeyJ"], ["KeyJ"]),
        (["Slash"], ["/"]),
        ([" "], ["Space"]),
        ("Delete", ["Delete"]),
        ([], []),
    ],
)
def test_characters_and_codes_of_a_key_are_the_same(keys: list[str] | str, expected: list[str]) -> None:
    """A letter is its code, a punctuation code its character; no key at all leaves the action to its button."""
    search: dict[str, list[str]] = {"search": []} if expected == ["/"] else {}
    assert key_bindings({**search, "skip": keys})["skip"] == expected


def test_stated_class_keys_replace_the_default() -> None:
    """In the order of the list."""
    assert key_bindings({"classes": ["KeyJ", "1", "KeyG"]})["classes"] == ["KeyJ", "Digit1", "KeyG"]


@pytest.mark.parametrize(
    ("remapping", "message"),
    [
        ({"skp": ["KeyJ"]}, r"Unknown action 'skp'.*did you mean 'skip'"),
        ({"zzz": ["KeyJ"]}, r"Unknown action 'zzz'.*the actions are accept, reject"),
        ({"skip": ["KeyÄ"]}, r"Unknown key 'KeyÄ' for 'skip'.*did you mean 'Key"),
        ({"skip": ["Escape!!"]}, r"Unknown key 'Escape!!' for 'skip'"),
        ({"skip": ["Tab"]}, r"Unknown key 'Tab' for 'skip'"),
        ({"skip": [""]}, r"Unknown key '' for 'skip'"),
        ({"skip": ["KeyB"]}, r"'KeyB' has two actions.*'skip' and 'bad'.*state other keys"),
        ({"bad": ["a"]}, r"'KeyA' has two actions.*'accept' and 'bad'"),
        ({"classes": ["Digit1", "KeyS"]}, r"'KeyS' has two actions.*'skip' and 'classes'"),
    ],
)
def test_mistakes_are_refused_with_the_remedy(remapping: dict[str, list[str]], message: str) -> None:
    """Unknown actions and keys, and keys with two actions."""
    with pytest.raises(InputError, match=message):
        key_bindings(remapping)
