"""Generate the page about metrics from `btc_core/metrics.py` and from the alerts that use them.

The response to an alert does not belong here: it is in `docs/runbook.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from prometheus_client.metrics import MetricWrapperBase

from btc_core import metrics
from docs.generate.markdown import code, table

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "rules.yml"
HEAD = """\
# Metrics

```
curl -s http://127.0.0.1:9103/metrics | grep btc_consumer_lag      # the features worker
```

Each worker and the API serve their own metrics on the loopback interface. The ports are listed under
[Settings](settings.md#ports-of-a-stack). The Prometheus server in `docker-compose.yml` scrapes all of them.
"""


def page() -> str:
    """Describe every exported metric with its labels, and the metrics that Prometheus computes by its recording rules."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    rows = [
        (code(name), family, ", ".join(map(code, labels)), meaning, _alerts(name, rules))
        for name, family, labels, meaning in exported()
    ]
    shown = table(("metric", "kind", "labels", "meaning", "alerts"), rows)
    recorded = [(code(rule["record"]), code(rule["expr"])) for rule in rules if "record" in rule]
    return f"{HEAD}\n{shown}\n\n## Recorded by Prometheus\n\n{table(('metric', 'expression'), recorded)}\n"


def exported() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Yield the name as Prometheus shows it, the kind, the labels and the meaning of every metric."""
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield name, family.type, metric._labelnames, family.documentation  # noqa: SLF001 - prometheus_client has no public accessor for label names


def _alerts(name: str, rules: list[dict[str, str]]) -> str:
    """Return links to the alerts whose expression contains the metric."""
    names = [rule["alert"] for rule in rules if "alert" in rule and name in rule["expr"]]
    return ", ".join(f"[{alert}](../runbook.md#{alert.lower()})" for alert in names)
