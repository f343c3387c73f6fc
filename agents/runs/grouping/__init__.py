"""Groups of tasks measured, chosen, trained and reported: ``scripts/group.py``."""
