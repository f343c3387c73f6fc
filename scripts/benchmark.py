"""Benchmarks, as ratios taken in one run: ``scripts/benchmark.py update|envs|checkpoint|soak key=value ...``."""

from agents.runs.cli import benchmark

if __name__ == "__main__":  # worker processes import this file
    raise SystemExit(benchmark())
