"""Groups and combiners on a supervised suite: ``scripts/supervised.py suite=digits|regression key=value ...``."""

from agents.runs.cli import supervised

if __name__ == "__main__":
    raise SystemExit(supervised())
