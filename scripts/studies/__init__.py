"""Experiments about the method."""
