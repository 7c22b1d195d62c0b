"""Turns checkpoints of any layout into ours: renamed, quantized, verified."""
