"""Callbacks, logs and figures."""
