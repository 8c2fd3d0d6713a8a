"""Reproducing published tables: rows to their protocol, beside the published figures."""
