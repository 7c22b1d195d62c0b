"""Parts that all commands share: arguments, outputs, progress, signals."""
