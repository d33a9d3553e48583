"""Training: data, loop, callbacks, checkpoints."""
