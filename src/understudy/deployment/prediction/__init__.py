"""Predictions of a trained student on pictures of any form."""
