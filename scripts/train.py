"""Train an agent: ``scripts/train.py CONFIG key.sub=value ...``."""

from agents.runs.cli import train

raise SystemExit(train())
