"""Turns checkpoints of any layout into ours: renamed, quantised, verified."""
