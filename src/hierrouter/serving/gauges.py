"""What Prometheus is told of the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from hierrouter.pool.live.member import Member
    from hierrouter.serving.events import Hop, Route

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
"""Upper ends of the buckets: from a decision to a long answer on a processor."""


class Gauges:
    """Counters and histograms of requests, and gauges of the models as they stand."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Registers everything.

        Args:
            registry: where; the one whose numbers `/metrics` tells.
        """

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"hierrouter_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str, *labels: str) -> Histogram:
            name = f"hierrouter_{name}_seconds"
            return Histogram(name, text, labels, buckets=SECONDS, registry=registry)

        self._registry = registry
        self.in_flight = InFlight()
        """Counted by whoever lets queries in."""
        self._requests = counter("requests", "Requests, by interface and status.", "api", "status")
        self._request = seconds("request", "Whole requests.", "api")
        self._first = seconds("first_token", "Until the first piece of an answer.", "api")
        self._hop = seconds("hop", "Hops, decision and call.", "model", "role")
        self._decision = seconds("decision", "Decisions, encoding among them.")
        self._tokens = counter("tokens", "Tokens, read and written.", "model", "direction")
        self._dollars = counter("cost_usd", "Dollars, lost calls' too.", "model")
        self._routes = counter("routes", "Answers, by route.", "route")
        self._fallbacks = counter("fallbacks", "Hops whose first choice failed.", "model")
        self._failures = counter("call_failures", "Calls that failed.", "model")

    def request(self, api: str, status: int, took_s: float) -> None:
        """A request has ended."""
        self._requests.labels(api, str(status)).inc()
        self._request.labels(api).observe(took_s)

    def refused(self, api: str, status: int) -> None:
        """A request was not let in; how long that took says nothing about those that are."""
        self._requests.labels(api, str(status)).inc()

    def first_piece(self, api: str, took_s: float) -> None:
        """The first piece of an answer is there."""
        self._first.labels(api).observe(took_s)

    def hop(self, hop: Hop) -> None:
        """A call is done."""
        model, completion = hop.decision.model, hop.completion
        self._hop.labels(model, hop.decision.role).observe(hop.latency_s)
        self._decision.observe(hop.decided_s)
        self._tokens.labels(model, "in").inc(completion.tokens_in)
        self._tokens.labels(model, "out").inc(completion.tokens_out)
        self._dollars.labels(model).inc(hop.cost_usd)
        if hop.decision.fallback:
            self._fallbacks.labels(model).inc()

    def route(self, route: Route) -> None:
        """A route has ended, with an answer or without."""
        if route.finish_reason:
            self._routes.labels(route.path).inc()
        for model, dollars in route.lost.items():
            self._dollars.labels(model).inc(dollars)

    def failure(self, model: str) -> None:
        """A call of a model has failed."""
        self._failures.labels(model).inc()

    def watch(self, members: tuple[Member, ...]) -> None:
        """Tells, whenever it is asked, how the models stand."""
        self._registry.register(_Standing(members, self.in_flight))


@dataclass
class Failing:
    """Tells whose calls failed: a route keeps its failures in order, and each ended a decision."""

    gauges: Gauges
    route: Route
    model: str = ""
    """Of the latest decision."""
    told: int = 0

    def note(self) -> None:
        """Counts what has failed since the decision."""
        for _ in self.route.failures[self.told :]:
            self.gauges.failure(self.model)
        self.told = len(self.route.failures)


@dataclass
class InFlight:
    """How many queries are under way, or have places kept for them."""

    count: int = 0


class _Standing:
    """Reads the models when the numbers are asked for."""

    def __init__(self, members: tuple[Member, ...], in_flight: InFlight) -> None:
        self._members, self._in_flight = members, in_flight

    def collect(self) -> Iterator[Metric]:
        under_way = GaugeMetricFamily("hierrouter_in_flight", "Queries under way.")
        under_way.add_metric([], self._in_flight.count)
        yield under_way
        standing: list[tuple[str, str, Callable[[Member], float]]] = [
            ("waiting", "Calls that wait for a place.", lambda m: m.waiting),
            ("running", "Calls under way: the size of the batch.", lambda m: m.running),
            ("available", "1, or 0 while it is left alone.", lambda m: m.breaker.wait_s == 0),
        ]
        for name, text, value in standing:
            family = GaugeMetricFamily(f"hierrouter_model_{name}", text, labels=["model"])
            for member in self._members:
                family.add_metric([member.spec.name], float(value(member)))
            yield family
