"""Normalizers of text by name, and which of them a language is measured with."""

from collections.abc import Callable
from dataclasses import dataclass

from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

__all__ = ["NORMALIZERS", "Normalizer", "normalizers_for"]


@dataclass(frozen=True, slots=True)
class Normalizer:
    """A way to compare texts: `units` of a text are its words, or its characters."""

    name: str
    unit: str
    units: Callable[[str], list[str]]

    @property
    def measure(self) -> str:
        """Return WER or CER."""
        return "WER" if self.unit == "words" else "CER"


_english = EnglishTextNormalizer()
_basic = BasicTextNormalizer()

NORMALIZERS = {
    one.name: one
    for one in (
        Normalizer("english", "words", lambda text: _english(text).split()),
        Normalizer("basic", "words", lambda text: _basic(text).split()),
        Normalizer("none", "words", str.split),
        Normalizer(
            "characters", "characters", lambda text: list("".join(_basic(text).split()))
        ),
    )
}
"""Whisper's English and basic normalizers, none, and characters after the basic one."""

# Languages written without spaces; Korean has them, but is measured both ways too.
_BOTH = ("zh", "ja", "ko")
_CHARACTERS = ("yue", "th", "lo", "my", "km")


def normalizers_for(language: str | None) -> list[Normalizer]:
    """Return what is used for a language of ISO 639 where nobody says another."""
    names = ["basic"]
    if language == "en":
        names = ["english"]
    elif language in _BOTH:
        names = ["characters", "basic"]
    elif language in _CHARACTERS:
        names = ["characters"]
    return [NORMALIZERS[name] for name in names]
