"""Log files of a run."""
