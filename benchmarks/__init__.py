"""Cost of distillation: ratios of processor time, measured step by step in one process."""
