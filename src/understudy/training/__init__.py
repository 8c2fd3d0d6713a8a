"""The training loop, the devices it runs on and its checkpoints."""
