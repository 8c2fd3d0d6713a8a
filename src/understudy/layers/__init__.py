"""Layers that stay in the student."""
