"""Small supervised suites on which every group of tasks can be trained: ``scripts/supervised.py``."""
