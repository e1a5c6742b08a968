"""What the dashboard, the rules and the autoscalers ask Prometheus for."""

import json
from collections.abc import Iterator
from typing import Any

import promql_parser
import yaml

from tests.deploy.chart import render
from tests.deploy.conftest import ROOT

DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "neuro-latent.json"
RULES = DEPLOY / "prometheus" / "rules.yaml"
PROMETHEUS_OWN = {"up"}


def rules() -> list[dict[str, Any]]:
    """All recording and alerting rules."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def autoscaler_queries() -> list[str]:
    """The queries of the chart's autoscalers."""
    values = {"repository": {"version": "v1"}, "scaling": {"by": "keda"}}
    return [query for kserve in (True, False) for query in queries(render({**values, "kserve": {"enabled": kserve}}))]


def queries(value: Any) -> Iterator[str]:
    """The values of the keys ``query``."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "query" and isinstance(inner, str):
                yield inner
            else:
                yield from queries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from queries(inner)


def dashboard_queries() -> list[str]:
    """The queries of the dashboard, with Grafana's variable filled in."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    return [query.replace("$__rate_interval", "5m") for query in found]


def asked_metrics() -> set[str]:
    """The metrics that somebody asks for, but for those that Prometheus itself or a recording rule makes."""
    texts = [*(rule["expr"] for rule in rules()), *dashboard_queries(), *autoscaler_queries()]
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    return {name for text in texts for name in names(text)} - recorded - PROMETHEUS_OWN


def names(query: str) -> set[str]:
    """The metrics of a query, which must be PromQL.

    Raises:
        ValueError: it is not.
    """
    return set(selected(promql_parser.parse(query)))


def selected(expression: Any) -> Iterator[str]:
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression.name
    inner = [getattr(expression, part, None) for part in ("expr", "lhs", "rhs", "vector_selector")]
    for part in [*inner, *getattr(expression, "args", [])]:
        if part is not None:
            yield from selected(part)
