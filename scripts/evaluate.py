"""Evaluate an agent: ``scripts/evaluate.py CHECKPOINT_OR_RUN_DIR [episodes=50] [goals=unseen]``."""

from mtrl_transfer.agents.runs.cli import evaluate

if __name__ == "__main__":  # worker processes import this file
    raise SystemExit(evaluate())
