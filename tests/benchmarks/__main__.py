"""Run the benchmarks and print a table and a JSON object: ``make bench`` or ``make bench ARGS='--scale 0.2'``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.measure import cpu_seconds, has_row, peak_rss_mib, until
from benchmarks.workloads import MARKERS_FROM, TABLE, Workload, create, perform, standard
from cdc.demo.binaries import find_binaries
from cdc.demo.engine_process import EngineProcess
from cdc.demo.server import PostgresServer, free_port

TIMEOUT_SECONDS = 600
SETTINGS = {"max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off", "shared_buffers": "512MB"}


class Bench:
    """Source and lake servers, a native subscription and an engine over the same source table."""

    def __init__(self, directory: Path, stack: ExitStack, *, tcp: bool) -> None:
        self._stack = stack
        self.source_server = stack.enter_context(
            PostgresServer(directory / "source", settings={**SETTINGS, "wal_level": "logical"}, tcp=tcp)
        )
        self.lake_server = stack.enter_context(PostgresServer(directory / "lake", settings=SETTINGS, tcp=tcp))
        self.source_dsn, self.lake_dsn, self.native_dsn = (
            server.tcp_dsn(name) if server.create_database(name) and tcp else server.dsn(name)
            for server, name in (
                (self.source_server, "shop"),
                (self.lake_server, "lake"),
                (self.lake_server, "native"),
            )
        )
        self.source = self._connect(self.source_dsn)
        self.lake = self._connect(self.lake_dsn)
        self.native = self._connect(self.native_dsn)
        create(self.source)
        self._subscribe()
        http = f"127.0.0.1:{free_port()}"
        config = directory / "cdc.yaml"
        config.write_text(
            f"http: {http}\nlake: {{type: postgres, url: '{self.lake_dsn}'}}\n"
            f"sources:\n  shop: {{type: postgres, url: '{self.source_dsn}', tables: [public.ev]}}\n"
        )
        self.engine = EngineProcess(config, http=http, log=directory / "engine.log")
        self.markers = MARKERS_FROM

    def _connect(self, dsn: str) -> psycopg.Connection[Any]:
        return self._stack.enter_context(psycopg.connect(dsn, autocommit=True))

    def _subscribe(self) -> None:
        self.source.execute("CREATE PUBLICATION native FOR TABLE ev")
        for slot in ("native", "receiver"):
            self.source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
        self.native.execute(TABLE)
        self.native.execute(
            f"CREATE SUBSCRIPTION native CONNECTION '{self.source_dsn}' PUBLICATION native "
            "WITH (create_slot = false, slot_name = 'native', copy_data = false, enabled = false)"
        )

    def drain_native(self, marker: int) -> tuple[float, float]:
        """Let the subscription catch up; return wall and CPU seconds of its worker."""
        self.native.execute("ALTER SUBSCRIPTION native ENABLE")
        started = time.monotonic()
        until(lambda: self._native_pid() is not None, timeout_seconds=30)
        pid = self._native_pid()
        assert pid is not None
        before = cpu_seconds(pid)
        until(lambda: has_row(self.native, "ev", marker), timeout_seconds=TIMEOUT_SECONDS)
        seconds, cpu = time.monotonic() - started, cpu_seconds(pid) - before
        self.native.execute("ALTER SUBSCRIPTION native DISABLE")
        until(lambda: self._native_pid() is None, timeout_seconds=30)
        return seconds, cpu

    def _native_pid(self) -> int | None:
        row = self.native.execute("SELECT pid FROM pg_stat_subscription WHERE pid IS NOT NULL").fetchone()
        return None if row is None else int(row[0])

    @contextmanager
    def running(self) -> Iterator[int]:
        """Run the engine; yield its pid."""
        self.engine.start()
        try:
            yield self.engine.pid
        finally:
            self.engine.stop()

    def drain_engine(self, marker: int) -> tuple[float, float, float]:
        """Let the engine catch up; return wall seconds from its first row, CPU seconds, and its peak RSS in MiB."""
        with self.running() as pid:
            until(lambda: cpu_seconds(pid) > 0 and self._engine_streams(), timeout_seconds=30)
            before, started = cpu_seconds(pid), time.monotonic()
            until(lambda: has_row(self.lake, "shop.ev", marker), timeout_seconds=TIMEOUT_SECONDS)
            return time.monotonic() - started, cpu_seconds(pid) - before, peak_rss_mib(pid)

    def _engine_streams(self) -> bool:
        query = (
            "SELECT 1 FROM pg_stat_replication WHERE application_name = 'cdc:shop' AND state IN ('streaming','catchup')"
        )
        return self.source.execute(query).fetchone() is not None

    def drain_receiver(self) -> float | None:
        """Let pg_recvlogical read the same changes to /dev/null; return its CPU seconds, or None without it."""
        program = find_binaries() / "pg_recvlogical"
        if not program.exists():
            return None
        row = self.source.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        assert row is not None
        process = subprocess.Popen(
            [
                program, "--dbname", self.source_dsn, "--slot", "receiver", "--start", "--endpos", row[0], "--no-loop",
                "-o", "proto_version=1", "-o", "publication_names=native", "-f", "/dev/null",
            ]
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            raise RuntimeError(f"pg_recvlogical: expected exit code 0, got {status}")
        return usage.ru_utime + usage.ru_stime


def throughput(bench: Bench, workload: Workload, *, engine_first: bool) -> dict[str, Any]:
    """Measure one workload: the subscription, the engine and pg_recvlogical over the same log."""
    bench.markers += 1
    perform(bench.source, workload, bench.markers)
    engine = bench.drain_engine(bench.markers) if engine_first else None
    native_seconds, native_cpu = bench.drain_native(bench.markers)
    engine_seconds, engine_cpu, rss = engine or bench.drain_engine(bench.markers)
    receiver_cpu = bench.drain_receiver()
    per_million = 1e6 / workload.changes
    return {
        "workload": workload.name,
        "changes": workload.changes,
        "engine_per_second": round(workload.changes / engine_seconds),
        "native_per_second": round(workload.changes / native_seconds),
        "ratio": round(native_seconds / engine_seconds, 2),
        "engine_cpu_per_million": round(engine_cpu * per_million, 2),
        "native_cpu_per_million": round(native_cpu * per_million, 2),
        "pg_recvlogical_cpu_per_million": None if receiver_cpu is None else round(receiver_cpu * per_million, 2),
        "peak_rss_mib": round(rss),
    }


def latency(bench: Bench, commits: int) -> dict[str, Any]:
    """Measure commit-to-visible of single-row transactions while nothing else happens."""
    with bench.running():
        until(bench._engine_streams, timeout_seconds=30)
        samples = []
        for _ in range(commits):
            bench.markers += 1
            bench.source.execute("INSERT INTO ev (id, n) VALUES (%s, 1)", (bench.markers,))
            started = time.perf_counter()
            until(lambda: has_row(bench.lake, "shop.ev", bench.markers), timeout_seconds=30, every_seconds=0)
            samples.append((time.perf_counter() - started) * 1000)
            time.sleep(0.005)
    samples.sort()
    return {f"p{share}_ms": round(samples[min(commits - 1, commits * share // 100)], 2) for share in (50, 90, 99)}


def large_transaction(bench: Bench, rows: int) -> dict[str, Any]:
    """Measure the engine's memory through one transaction of this many rows, sent while the engine runs."""
    bench.markers += 1
    with bench.running() as pid:
        until(bench._engine_streams, timeout_seconds=30)
        started = time.monotonic()
        low = 100_000_000
        with bench.source.transaction():
            bench.source.execute(
                "INSERT INTO ev SELECT i, 1, 'name of ' || i, i * 0.37, now(), true, "
                "jsonb_build_object('a', i, 'b', 'some text that is not too short at all', 'c', array[1, 2, 3]), "
                "md5(i::text)::uuid FROM generate_series(%s::bigint, %s::bigint) i",
                (low, low + rows - 1),
            )
            bench.source.execute("INSERT INTO ev (id) VALUES (%s)", (bench.markers,))
        until(lambda: has_row(bench.lake, "shop.ev", bench.markers), timeout_seconds=TIMEOUT_SECONDS)
        return {
            "rows": rows,
            "seconds": round(time.monotonic() - started, 1),
            "peak_rss_mib": round(peak_rss_mib(pid)),
        }


def same(bench: Bench) -> bool:
    """Return whether source, lake and subscription hold the same rows."""
    query = "SELECT count(*), sum(hashtext(ev::text)::bigint) FROM {}"
    rows = [
        connection.execute(query.format(table)).fetchone()
        for connection, table in ((bench.source, "ev"), (bench.lake, "shop.ev ev"), (bench.native, "ev"))
    ]
    return rows[0] == rows[1] == rows[2]


def main() -> int:
    """Run everything; exit code 4 if the copies differ at the end."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="1.0: a million inserts")
    parser.add_argument("--unix", action="store_true", help="connect by Unix sockets instead of TCP")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cdc-bench-")))
        directory.chmod(0o755)
        bench = Bench(directory, stack, tcp=not arguments.unix)
        with bench.running():
            until(lambda: _table_exists(bench.lake), timeout_seconds=30)
        rows = []
        for number, workload in enumerate(standard(arguments.scale)):
            rows.append(throughput(bench, workload, engine_first=number % 2 == 0))
            if not arguments.json:
                print(_line(rows[-1]), flush=True)
        equal = same(bench)
        result = {
            "machine": {
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "postgres": bench.source_server.version,
            },
            "throughput": rows,
            "identical": equal,
            "idle_latency": latency(bench, 500),
            "large_transaction": large_transaction(bench, int(2_000_000 * arguments.scale)),
        }
        print(json.dumps(result, indent=None if arguments.json else 2))
    return 0 if equal else 4


def _table_exists(connection: psycopg.Connection) -> bool:
    query = "SELECT 1 FROM cdc.tables WHERE state = 'streaming'"
    try:
        return connection.execute(query).fetchone() is not None
    except psycopg.errors.UndefinedTable:
        return False


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['workload']:32} engine {row['engine_per_second']:>8,}/s  native {row['native_per_second']:>8,}/s  "
        f"ratio {row['ratio']:.2f}  CPU s/M: engine {row['engine_cpu_per_million']}, native "
        f"{row['native_cpu_per_million']}, pg_recvlogical {row['pg_recvlogical_cpu_per_million']}  "
        f"RSS {row['peak_rss_mib']} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())
