"""The places of a request of many queries."""

from __future__ import annotations

import pytest

from hierrouter.serving.gauges import InFlight
from hierrouter.serving.service import Places


@pytest.mark.parametrize(
    ("held", "queries", "expected"),
    [(1, 1, [1]), (3, 3, [2, 1, 1]), (2, 5, [2, 2, 2, 1, 1])],
)
def test_a_place_that_no_other_query_needs_is_free_again(held, queries, expected) -> None:
    """The last one is given back when the request ends."""
    in_flight = InFlight(held)
    places = Places(in_flight, held, queries)
    found = []
    for _ in range(queries):
        places.done()
        found.append(in_flight.count)
        assert in_flight.count == places.held
    assert found == expected
