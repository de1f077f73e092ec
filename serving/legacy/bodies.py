"""Bodies of `POST /predict_*`: decoded, checked, turned into the matrix a model takes.

A body is a row or a batch of rows. A row is `{"features": {name: number, …}, "bid": 60000.0}`, the same with a list in
the order of `features.MODEL_FEATURES`, or that list alone. A batch is `{"rows": [row, …]}` or a list of rows.
`null` and an absent name are a missing value. What does not belong here: what a model makes of it.
"""

from __future__ import annotations

import difflib
import math
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from btc_core.features.catalogue import MODEL_FEATURES
from serving.problem_details import Problem

ORDER_URL = "/v1/features/order"
MAX_ROWS = 1_000
"""Rows a batch may have: about 10 ms of one thread; far more would hold up the others."""
MAX_MAGNITUDE = 1e30
"""Trees compare in 32 bits, where numbers end at 3.4e38; anything this large is a mistake anyway."""
SHOWN_CHARACTERS = 64
"""How much of a client's own text an error repeats."""

_INDEX = {name: index for index, name in enumerate(MODEL_FEATURES)}


class RowBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row; without `bid` (USD) the path is given in bps only."""

    features: dict[str, float | None] | list[float | None]
    bid: float | None = None


class BatchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Many rows, each an object or a bare list."""

    rows: list[Any]


class Given(msgspec.Struct, frozen=True):
    """Checked rows: `matrix` has shape (rows, MODEL_FEATURES), NaN where a value is missing."""

    matrix: npt.NDArray[np.float64]
    bids_usd: list[float | None]
    is_batch: bool


Body = TypeVar("Body", RowBody, BatchBody)

_decoder = msgspec.json.Decoder(float_hook=float)
# float_hook: a number beyond 64 bits becomes infinite, so that the check below can name its field.


def decode(body: bytes) -> Any:
    """Any JSON value of a body; 400 `bad_json` for what is none."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(
            HTTPStatus.BAD_REQUEST, "bad_json", f"the body is not JSON: {error}; send one JSON value"
        ) from None
    except RecursionError:
        raise Problem(
            HTTPStatus.BAD_REQUEST, "bad_json", "the body is nested too deeply; rows and numbers need three levels"
        ) from None


def given(body: bytes) -> Given:
    """The rows of a body; 400 for bad JSON, 422 naming the field for bad values."""
    raw = decode(body)
    rows, is_batch = _rows(raw)
    if not rows:
        raise _invalid("empty_batch", "the batch has no rows; send at least one")
    if len(rows) > MAX_ROWS:
        raise _invalid("batch_too_long", f"the batch has {len(rows)} rows, at most {MAX_ROWS} are taken; split it")
    matrix = np.full((len(rows), len(MODEL_FEATURES)), np.nan)
    bids: list[float | None] = []
    for index, row in enumerate(rows):
        where = f"rows[{index}]." if is_batch else ""
        checked = _row(row, where)
        _fill(matrix[index], checked.features, where)
        bids.append(_bid(checked.bid, where))
    return Given(matrix=matrix, bids_usd=bids, is_batch=is_batch)


def _rows(raw: Any) -> tuple[list[Any], bool]:
    """The rows as they came, and whether they are a batch."""
    if isinstance(raw, list):
        is_batch = bool(raw) and isinstance(raw[0], list | dict)
        return (raw if is_batch else [raw]), is_batch
    if isinstance(raw, dict) and "rows" in raw:
        return _convert(raw, BatchBody, "").rows, True
    if isinstance(raw, dict):
        return [raw], False
    raise _invalid(
        "bad_shape",
        'the body must be {"features": {…}}, a list of numbers, or {"rows": [row, …]}; '
        f"GET {ORDER_URL} lists the features",
    )


def _row(raw: Any, where: str) -> RowBody:
    return _convert({"features": raw} if isinstance(raw, list) else raw, RowBody, where)


def _convert(raw: Any, kind: type[Body], where: str) -> Body:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        name = _first_bad_name(raw)
        if name is not None:
            raise _not_a_number(f"{where}{name}") from None
        raise _invalid("invalid_body", f"{where.rstrip('.') or 'the body'}: {error}") from None


def _first_bad_name(raw: Any) -> str | None:
    """The first feature that is neither a number nor null; msgspec gives no name for a value of a map."""
    features = raw.get("features") if isinstance(raw, dict) else None
    if isinstance(features, list):
        pairs: list[tuple[str, Any]] = [(_place(index), value) for index, value in enumerate(features)]
    elif isinstance(features, dict):
        pairs = [(f"features.{str(name)[:SHOWN_CHARACTERS]}", value) for name, value in features.items()]
    else:
        return None
    return next((name for name, value in pairs if not _is_number(value)), None)


def _is_number(value: Any) -> bool:
    if value is None or isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_MAGNITUDE


def _place(index: int) -> str:
    name = f" ({MODEL_FEATURES[index]})" if index < len(MODEL_FEATURES) else ""
    return f"features[{index}]{name}"


def _fill(target: npt.NDArray[np.float64], features: dict[str, float | None] | list[float | None], where: str) -> None:
    """Write checked values into one row of the matrix."""
    if isinstance(features, list):
        if len(features) != len(MODEL_FEATURES):
            raise _invalid(
                "wrong_feature_count",
                f"{where}features has {len(features)} numbers, {len(MODEL_FEATURES)} belong there in the order of "
                f"GET {ORDER_URL}; send null for a missing one, or name them in an object",
                expected=len(MODEL_FEATURES),
                order_url=ORDER_URL,
            )
        for index, value in enumerate(features):
            target[index] = _finite(value, where, _place, index)
        return
    for name, value in features.items():
        place = _INDEX.get(name)
        if place is None:
            raise _unknown(name, where)
        target[place] = _finite(value, where, "features.{}".format, name)


def _finite(value: float | None, where: str, place: Any, key: object) -> float:
    if value is None:
        return math.nan
    if not abs(value) <= MAX_MAGNITUDE:
        raise _not_a_number(f"{where}{place(key)}")
    return value


def _bid(value: float | None, where: str) -> float | None:
    if value is not None and not 0 < value <= MAX_MAGNITUDE:
        raise _invalid("bad_value", f"{where}bid must be a positive number of USD; leave it out for a path in bps only")
    return value


def _unknown(name: str, where: str) -> Problem:
    shown = name[:SHOWN_CHARACTERS]
    close = difflib.get_close_matches(shown, MODEL_FEATURES, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return _invalid(
        "unknown_feature",
        f"{where}features.{shown} is not a feature of the models{hint} GET {ORDER_URL} lists them",
        field=shown,
        order_url=ORDER_URL,
    )


def _not_a_number(field: str) -> Problem:
    return _invalid(
        "bad_value",
        f"{field} must be a finite number up to ±{MAX_MAGNITUDE:g}, or null when it is missing",
        field=field,
    )


def _invalid(code: str, detail: str, **more: object) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, code, detail, more=more)
