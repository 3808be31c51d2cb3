"""Training: targets, losses, the loop and its checkpoints."""
