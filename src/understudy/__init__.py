"""Understudy: train a small vision network to perform like a big one by mimicking its features."""

__version__ = "0.1.0"
