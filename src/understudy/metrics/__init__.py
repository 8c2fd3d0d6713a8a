"""Metrics of classification and detection."""
