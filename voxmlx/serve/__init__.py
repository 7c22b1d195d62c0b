"""One model, many sessions, the realtime protocols people already speak."""
