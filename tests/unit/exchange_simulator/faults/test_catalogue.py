"""The catalogue of faults: what it accepts and what it explains."""

from __future__ import annotations

import pytest

from btc_core.errors import InvalidInput
from exchange_simulator.faults.catalogue import CATALOGUE, BadQuote, ClockSkew, arguments, described, parse

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("kind", "texts", "named"),
    [
        ("explode", {}, "'explode'"),
        ("", {}, "kind"),
        ("stall", {"seconds": "soon"}, "seconds"),
        ("stall", {"seconds": "nan"}, "seconds"),
        ("stall", {"minutes": "1"}, "minutes"),
        ("close", {"code": "1005"}, "code"),
        ("skip_trades", {"count": "0"}, "count"),
        ("reorder_trades", {"count": "1"}, "count"),
        ("clock_skew", {"seconds": "2.1"}, "seconds"),
        ("oversized", {"bytes": "99999999"}, "bytes"),
        ("status", {"system": "asleep"}, "system"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_name(kind: str, texts: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        parse(kind, texts)


def test_a_wrong_value_is_refused_with_the_values_that_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"its arguments: channel \(book \| ohlc \| ticker \| trade\), symbol"):
        parse("silence", {"channel": "x"})


def test_texts_become_values_and_the_catalogue_explains_every_argument() -> None:
    assert parse("clock_skew", {"seconds": "-1.5"}) == ClockSkew(seconds=-1.5)
    assert parse("bad_quote", {"price": "null"}) == BadQuote(price="null")
    text = "\n".join(described())
    for name, kind in CATALOGUE.items():
        assert parse(name, {}).kind == name
        assert f"{name}: {kind.__doc__}" in text
        assert all(argument.meaning for argument in arguments(kind))
