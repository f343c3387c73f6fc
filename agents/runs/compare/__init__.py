"""Many training runs side by side, and the comparison of methods by them."""
