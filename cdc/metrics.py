"""The engine's status as Prometheus metrics.

A scrape reads one ``EngineStatus`` from memory and asks no database. Labels are the names of configured sources and of
their selected tables, so the number of series is bounded by the configuration, never by the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cdc.contracts import TableState
from cdc.status import EngineStatus, SourceState, SourceStatus

_SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS_BUCKETS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)

_SOURCE_GAUGES: tuple[tuple[str, str, Callable[[SourceStatus], float | None]], ...] = (
    ("cdc_lag_seconds", "Age of the oldest source commit not yet durable in the lake.", lambda s: s.lag_seconds),
    ("cdc_rpo_seconds", "Recovery point objective.", lambda s: s.rpo_seconds),
    (
        "cdc_rpo_budget_remaining_ratio",
        "Share of the objective's error budget that is left in its window, 1 to 0.",
        lambda s: s.budget_remaining_ratio,
    ),
    ("cdc_rto_seconds", "Recovery time objective.", lambda s: s.rto_seconds),
    (
        "cdc_recovery_estimate_seconds",
        "Backlog divided by the measured rate.",
        lambda s: s.recovery_estimate_seconds,
    ),
    ("cdc_source_up", "Whether the source is streaming.", lambda s: float(s.state is SourceState.STREAMING)),
    ("cdc_source_retained_bytes", "Log that the source keeps for us.", lambda s: s.retained_bytes),
    ("cdc_buffer_bytes", "Changes received and not yet handed on, in memory.", lambda s: s.buffered_bytes),
)
"""Name, help and value of the gauges by source; None leaves the sample out."""

_SOURCE_COUNTERS: tuple[tuple[str, str, Callable[[SourceStatus], float]], ...] = (
    ("cdc_rpo_breach_seconds", "Time spent beyond the RPO.", lambda s: s.rpo_breach_seconds_total),
    ("cdc_transactions", "Source transactions applied.", lambda s: s.transactions_total),
)
"""Name (``_total`` is appended), help and value of the counters by source."""


class ApplyMetrics:
    """What applying a group takes. Thread-safe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "cdc_apply_seconds",
            "Time to apply one group and make it durable.",
            ["source"],
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self._rows = Histogram(
            "cdc_apply_rows", "Rows in one applied group.", ["source"], buckets=_ROWS_BUCKETS, registry=registry
        )

    def observe(self, source: str, seconds: float, rows: int) -> None:
        """Count one applied group of ``rows`` rows."""
        self._seconds.labels(source).observe(seconds)
        self._rows.labels(source).observe(rows)


class StatusCollector(Collector):
    """Turns the status that ``read`` returns into metrics; ``read`` must not block."""

    def __init__(self, read: Callable[[], EngineStatus]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of one status."""
        status = self._read()
        yield InfoMetricFamily("cdc_build", "Version of the engine.", value={"version": status.version})
        for name, text, value in _SOURCE_GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=["source"])
            for source in status.sources:
                if (number := value(source)) is not None:
                    gauge.add_metric([source.name], number)
            yield gauge
        for name, text, total in _SOURCE_COUNTERS:
            counter = CounterMetricFamily(name, text, labels=["source"])
            for source in status.sources:
                counter.add_metric([source.name], total(source))
            yield counter
        yield from _table_metrics(status)


def build_registry(read: Callable[[], EngineStatus]) -> tuple[CollectorRegistry, ApplyMetrics]:
    """Return a registry of its own with all the engine's metrics, and the part that the engine feeds itself."""
    registry = CollectorRegistry()
    registry.register(StatusCollector(read))
    return registry, ApplyMetrics(registry)


def _table_metrics(status: EngineStatus) -> Iterator[Metric]:
    changes = CounterMetricFamily("cdc_changes", "Changes applied.", labels=["source", "table", "op"])
    states = GaugeMetricFamily("cdc_table_state", "1 for the table's state.", labels=["source", "table", "state"])
    copied = GaugeMetricFamily("cdc_snapshot_rows", "Rows of the initial copy so far.", labels=["source", "table"])
    for source in status.sources:
        for table in source.tables:
            for op, count in table.changes.items():
                changes.add_metric([source.name, table.table, op], count)
            for state in TableState:
                states.add_metric([source.name, table.table, state.value], float(table.state is state))
            copied.add_metric([source.name, table.table], table.copied_rows)
    yield from (changes, states, copied)
