"""Tuning: a search over methods and their hyper-parameters, and its verdict on fresh seeds."""
