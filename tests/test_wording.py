"""Words in sentences, and names that must not steer a terminal."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from se_nas.wording import as_words, counted, printable, printable_data, printable_json


def test_numbers_and_their_nouns():
    assert [counted(number, "epoch") for number in (0, 1, 2)] == ["no epochs", "1 epoch", "2 epochs"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.34, "0.34 s"),
        (1, "1 s"),
        (6.25, "6.2 s"),
        (61.4, "61 s"),
        (480, "8.0 min"),
        (7200, "120.0 min"),
        (22_554, "6.3 h"),
    ],
)
def test_durations_in_words(seconds, words):
    assert as_words(seconds) == words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("resnet18 γ=16, ±0.3 %\n\tnext", "resnet18 γ=16, ±0.3 %\n\tnext"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\rb\x9b31m", "a\\rb\\x9b31m"),
        ("photo\u202egnp.exe", "photo\\u202egnp.exe"),
    ],
)
def test_control_characters_are_shown_as_escapes(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left(text):
    shown = printable(text)
    assert not [c for c in shown if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs")]
    assert printable(shown) == shown


def test_texts_in_data_are_shown_as_escapes():
    assert printable_data({"a\x1b": ["\x07", ("\u202e", 1, None)]}) == {
        "a\\x1b": ["\\x07", ("\\u202e", 1, None)]
    }


@given(st.recursive(st.text(), st.lists))
def test_json_that_is_printed_has_the_same_value_and_steers_no_terminal(value):
    for indent in (None, 1):
        shown = printable_json(json.dumps(value, ensure_ascii=False, indent=indent))
        assert json.loads(shown) == value
        assert not [c for c in shown if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs")]


def test_json_that_is_printed_keeps_letters():
    assert printable_json('"γ=16 \u202e\U000e0001"') == '"γ=16 \\u202e\\udb40\\udc01"'
