"""Layers that stay in the student after training."""
