"""Tests of distillers in loops of one's own."""
