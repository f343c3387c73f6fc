"""Files that hold agents and training states, without pickle."""
