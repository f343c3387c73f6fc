"""Choose which tasks share a network: ``scripts/group.py measure|choose|train|report CONFIG key=value ...``."""

from mtrl_transfer.agents.runs.cli import group

if __name__ == "__main__":  # worker processes import this file
    raise SystemExit(group())
