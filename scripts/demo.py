"""Watch a trained agent play MT10: ``scripts/demo.py [video=false] [episodes=1] [out=demo]``."""

from mtrl_transfer.agents.runs.cli import demo

if __name__ == "__main__":
    raise SystemExit(demo())
