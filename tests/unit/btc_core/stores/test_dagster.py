"""The requests to Dagster's GraphQL API fit the schema of the installed version."""

from __future__ import annotations

import graphql
import pytest

from btc_core.stores import dagster

pytestmark = pytest.mark.unit


def test_every_request_is_valid() -> None:
    from dagster_graphql.schema import create_schema

    schema = create_schema().graphql_schema
    requests = [
        text
        for name, text in vars(dagster).items()
        if isinstance(text, str) and text.lstrip().startswith(("query", "mutation", "{ "))
    ]
    assert len(requests) >= 6
    for text in requests:
        assert graphql.validate(schema, graphql.parse(text)) == []
