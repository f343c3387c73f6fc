"""Run configs: schema, loading and checks."""
