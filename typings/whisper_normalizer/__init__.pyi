"""Normalizers of Whisper's evaluation; their own files have no types."""
