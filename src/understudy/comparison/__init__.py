"""Comparing methods with a control under one budget, and the verdict on each."""
