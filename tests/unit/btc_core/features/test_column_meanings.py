"""The words about the columns of minute bars: each column has its own, and they say what the column is."""

from __future__ import annotations

import re

import pytest

from btc_core.features import column_meanings
from btc_core.features.column_meanings import COLUMN_MEANINGS
from btc_core.features.minute_columns import COLUMNS


def test_every_column_has_a_meaning_of_its_own_and_every_rule_has_a_column() -> None:
    assert tuple(COLUMN_MEANINGS) == COLUMNS
    meanings = [each.meaning for each in COLUMN_MEANINGS.values()]
    assert len(set(meanings)) == len(COLUMNS)
    assert [text for text in meanings if "_" in text or not text] == []
    for pattern, _, _ in column_meanings._RULES:
        assert any(re.fullmatch(pattern, name) for name in COLUMNS), pattern


def test_the_words_on_the_card_which_end_at_the_first_comma_tell_the_columns_apart() -> None:
    """`model_card.js` leaves out what follows ", which", a semicolon or a bracket. The half-life is such a detail."""
    shown = {name: re.split(r", which|;| \(", each.meaning)[0] for name, each in COLUMN_MEANINGS.items()}
    details = re.compile(r"log_gk_ewma_|profile_\d|log_gk_|log_parkinson_")
    plain = [text for name, text in shown.items() if not details.match(name)]
    assert len(set(plain)) == len(plain)
    assert shown["range_volatility_60m"] == (
        "how much the distances between high and low of single minutes differ in the last hour"
    )
    assert shown["log_gk_60m"] == "log of the variance over the last hour"


def test_a_column_without_a_rule_is_an_error_that_says_where_to_add_one() -> None:
    with pytest.raises(KeyError, match=r"skew_60m has no meaning: add a rule .*column_meanings.py"):
        column_meanings._meaning_of("skew_60m")
