"""Captions as one speaks: a source of sound, a session, a terminal, files."""
