"""A student, a frozen teacher and methods in one forward pass."""
