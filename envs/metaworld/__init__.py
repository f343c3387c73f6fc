"""Meta-World tasks."""
