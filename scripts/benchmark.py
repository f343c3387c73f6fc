"""Benchmarks, as ratios taken in one run: ``scripts/benchmark.py update|envs key=value ...``."""

from agents.runs.cli import benchmark

raise SystemExit(benchmark())
