"""The JSON that requests send to the old paths: its schemas, decoding it, and checking features.

A body of features is a row or a batch of rows. A row is `{"features": {name: number, …}, "bid": 60000.0}`, the same with
a list of numbers in the order of `MODEL_FEATURES`, or such a list alone. A batch is `{"rows": [row, …]}` or a list of
rows. `null` and a name that is left out are missing values. What does not belong here: what a model makes of them.
"""

from __future__ import annotations

import difflib
import math
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from btc_core.features.catalogue import FEATURES, MODEL_FEATURES
from serving.endpoints import SHOWN_CHARACTERS, RequestBody, schema_ref
from serving.plain_errors import wrong_body
from serving.problem_details import Problem

ORDER_URL = "/v1/features/order"
MAX_ROWS = 1_000
"""Most rows of a batch. A thread needs about 10 ms for them; far more would hold up other requests."""
MAX_MAGNITUDE = 1e30
"""Trees compare in 32 bits, whose numbers end at 3.4e38. A feature of this size is a mistake anyway."""

_NUMBER = {"type": ["number", "null"], "minimum": -MAX_MAGNITUDE, "maximum": MAX_MAGNITUDE}
_MEANINGS = {feature.name: f"{feature.meaning} [{feature.unit}]" for feature in FEATURES}
_LIST = {
    "type": "array",
    "items": _NUMBER,
    "minItems": len(MODEL_FEATURES),
    "maxItems": len(MODEL_FEATURES),
    "description": "All features in the order of /v1/features/order; null for a missing value.",
}
_NAMED = {
    "type": "object",
    "properties": {name: {**_NUMBER, "description": _MEANINGS[name]} for name in MODEL_FEATURES},
    "additionalProperties": False,
}
_ROW = {
    "type": "object",
    "properties": {
        "features": {"anyOf": [_NAMED, _LIST], "description": "The features by name, or as a list in their order."},
        "bid": {
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "maximum": MAX_MAGNITUDE,
            "description": "Best bid in USD. Without it the forecast of the bid is in bps only.",
        },
    },
    "required": ["features"],
    "additionalProperties": False,
}
_ONE = {"anyOf": [schema_ref("FeatureRow"), schema_ref("FeatureList")]}
_MANY = {"type": "array", "items": _ONE, "minItems": 1, "maxItems": MAX_ROWS}
_ROWS = {"type": "object", "properties": {"rows": _MANY}, "required": ["rows"], "additionalProperties": False}

FEATURE_BODY = RequestBody(
    "FeatureBody",
    {"FeatureList": _LIST, "FeatureRow": _ROW, "FeatureBody": {"anyOf": [*_ONE["anyOf"], _ROWS, _MANY]}},
)
ANY_JSON = RequestBody("AnyJson", {"AnyJson": {}})

_INDEX = {name: index for index, name in enumerate(MODEL_FEATURES)}


class RowBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row. Without `bid`, in USD, the forecast of the bid is in bps only."""

    features: dict[str, float | None] | list[float | None]
    bid: float | None = None


class BatchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Many rows, each an object or a list of numbers."""

    rows: list[Any]


class PostedFeatures(msgspec.Struct, frozen=True):
    """Checked rows: `matrix` has the shape (rows, MODEL_FEATURES) and NaN for missing values."""

    matrix: npt.NDArray[np.float64]
    bids_usd: list[float | None]
    is_batch: bool


Body = TypeVar("Body", RowBody, BatchBody)

# With float_hook a number beyond 64 bits becomes infinite, so that the check below can name its field.
_decoder = msgspec.json.Decoder(float_hook=float)


def decode_json(body: bytes) -> Any:
    """The JSON value of a body; raises a 400 `bad_json` if it is not JSON."""
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


def parse_features(body: bytes) -> PostedFeatures:
    """The rows of a body; raises a 400 if it is not JSON, and a 422 that names the field of a bad value."""
    rows, is_batch = _rows(decode_json(body))
    if not rows:
        raise _invalid("empty_batch", "the batch has no rows; send at least one")
    if len(rows) > MAX_ROWS:
        raise _invalid(
            "batch_too_long", f"the batch has {len(rows)} rows, and at most {MAX_ROWS} are allowed; split it"
        )
    matrix = np.full((len(rows), len(MODEL_FEATURES)), np.nan)
    bids: list[float | None] = []
    for index, row in enumerate(rows):
        where = f"rows[{index}]." if is_batch else ""
        checked = _convert({"features": row} if isinstance(row, list) else row, RowBody, where)
        _fill(matrix[index], checked.features, where)
        bids.append(_checked_bid(checked.bid, where))
    return PostedFeatures(matrix=matrix, bids_usd=bids, is_batch=is_batch)


def _rows(value: Any) -> tuple[list[Any], bool]:
    """The rows of a body before they are checked, and whether they are a batch."""
    if isinstance(value, list):
        is_batch = bool(value) and isinstance(value[0], list | dict)
        return (value if is_batch else [value]), is_batch
    if isinstance(value, dict) and "rows" in value:
        return _convert(value, BatchBody, "").rows, True
    if isinstance(value, dict):
        return [value], False
    raise _invalid(
        "bad_shape",
        'the body must be {"features": {…}}, a list of numbers, or {"rows": [row, …]}; '
        f"GET {ORDER_URL} lists the features",
    )


def _convert(value: Any, kind: type[Body], where: str) -> Body:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        name = _first_bad_feature(value)
        if name is not None:
            raise _not_a_number(f"{where}{name}") from None
        raise _invalid("invalid_body", wrong_body(error, kind, where)) from None


def _first_bad_feature(value: Any) -> str | None:
    """The first feature that is neither a number nor null. msgspec does not name the key of a bad value in a map."""
    features = value.get("features") if isinstance(value, dict) else None
    if isinstance(features, list):
        pairs: list[tuple[str, Any]] = [(_list_entry(index), each) for index, each in enumerate(features)]
    elif isinstance(features, dict):
        pairs = [(f"features.{str(name)[:SHOWN_CHARACTERS]}", each) for name, each in features.items()]
    else:
        return None
    return next((name for name, each in pairs if not _is_number(each)), None)


def _is_number(value: Any) -> bool:
    if value is None or isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_MAGNITUDE


def _list_entry(index: int) -> str:
    name = f" ({MODEL_FEATURES[index]})" if index < len(MODEL_FEATURES) else ""
    return f"features[{index}]{name}"


def _fill(row: npt.NDArray[np.float64], features: dict[str, float | None] | list[float | None], where: str) -> None:
    """Write checked features into a row of the matrix."""
    if isinstance(features, list):
        if len(features) != len(MODEL_FEATURES):
            raise _invalid(
                "wrong_feature_count",
                f"{where}features has {len(features)} numbers, and {len(MODEL_FEATURES)} are needed in the order of "
                f"GET {ORDER_URL}; send null for a missing value, or an object with names",
                expected=len(MODEL_FEATURES),
                order_url=ORDER_URL,
            )
        for index, value in enumerate(features):
            if not _is_in_range(value):
                raise _not_a_number(f"{where}{_list_entry(index)}")
            row[index] = math.nan if value is None else value
        return
    for name, value in features.items():
        index_of_name = _INDEX.get(name)
        if index_of_name is None:
            raise _unknown_feature(name, where)
        if not _is_in_range(value):
            raise _not_a_number(f"{where}features.{name}")
        row[index_of_name] = math.nan if value is None else value


def _is_in_range(value: float | None) -> bool:
    return value is None or abs(value) <= MAX_MAGNITUDE


def _checked_bid(value: float | None, where: str) -> float | None:
    if value is not None and not 0 < value <= MAX_MAGNITUDE:
        raise _invalid(
            "bad_value", f"{where}bid must be a positive number of USD; leave it out for a forecast of the bid in bps"
        )
    return value


def _unknown_feature(name: str, where: str) -> Problem:
    shown = name[:SHOWN_CHARACTERS]
    similar = difflib.get_close_matches(shown, MODEL_FEATURES, n=1)
    hint = f"; did you mean {similar[0]}?" if similar else ";"
    return _invalid(
        "unknown_feature",
        f"{where}features.{shown} is not a feature of the models{hint} GET {ORDER_URL} lists them",
        field=shown,
        order_url=ORDER_URL,
    )


def _not_a_number(field: str) -> Problem:
    return _invalid(
        "bad_value",
        f"{field} must be a finite number between -{MAX_MAGNITUDE:g} and {MAX_MAGNITUDE:g}, or null for a missing value",
        field=field,
    )


def _invalid(code: str, detail: str, **more: object) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, code, detail, more=more)
