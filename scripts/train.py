"""Train an agent: ``scripts/train.py CONFIG key.sub=value ...``."""

from mtrl_transfer.agents.runs.cli import train

if __name__ == "__main__":  # worker processes import this file
    raise SystemExit(train())
