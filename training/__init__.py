"""How the demo checkpoint is made: data, model, trainer, export (not installed)."""
