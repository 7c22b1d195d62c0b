"""The part of whisper_normalizer that is used here."""

class BasicTextNormalizer:
    def __call__(self, s: str) -> str: ...
