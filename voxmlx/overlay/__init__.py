"""The latest captions as a transparent page, for any number of viewers."""
