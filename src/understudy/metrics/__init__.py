"""Metrics of classification and detection, and of a student's fidelity to its teacher."""
