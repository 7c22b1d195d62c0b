"""The loop of ids: how each is chosen, held back, repaired and given out."""
