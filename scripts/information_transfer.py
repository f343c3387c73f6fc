"""Reproduce the theory of information transfer: ``scripts/information_transfer.py trials=20 out=FOLDER ...``."""

from agents.runs.cli import information_transfer

if __name__ == "__main__":
    raise SystemExit(information_transfer())
