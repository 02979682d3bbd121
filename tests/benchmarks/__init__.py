"""Benchmarks: ratios against PostgreSQL's own replication, measured in one run on one machine. See BENCHMARKS.md."""
