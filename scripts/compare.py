"""Compare methods: ``scripts/compare.py COMPARISON key.sub=value ...``."""

from mtrl_transfer.agents.runs.cli import compare

if __name__ == "__main__":  # worker processes import this file
    raise SystemExit(compare())
