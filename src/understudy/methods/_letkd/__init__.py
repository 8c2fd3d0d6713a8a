"""Codebook, sub-classes and decisions that letKD computes from its teacher before training."""
