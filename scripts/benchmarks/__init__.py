"""Benchmarks, as ratios taken in one run."""
