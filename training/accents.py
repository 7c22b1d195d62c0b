"""English digits as speakers of other languages say them, through espeak-ng."""

from collections.abc import Sequence

import numpy as np

from training.domain import DIGITS
from training.espeak import VARIANTS, Espeak
from training.synthesis import Speech

# Zero to nine, spelled so that the language's own voice says the English word.
SPELLINGS = {
    "de": "siero uann tuh srie fohr feif six ßewwen ejt nein",
    "nl": "zieroo wan toe srie foor faif siks seven eet nain",
    "sv": "siro oann to tri får fajv siks seven ejt najn",
    "da": "siro van tu tri får fajv siks seven ejt najn",
    "fr": "ziro ouanne tou sri fore faïve sixe sévenne éite naïne",
    "it": "siro uan tu tri for faiv sics seven eit nain",
    "es": "sírou uan tu zri for faif siks seven eit nain",
    "es-419": "sírou uan tu tri for faif siks seven eit nain",
    "pt": "zirou uan tu tri fór faiv siks séven eit náin",
    "pt-br": "zirou uan tu tri fór faiv siks séven eit náin",
    "ro": "zirou uan tu tri for faiv sics seven eit nain",
    "pl": "zirou łan tu fri for fajf siks sewen ejt najn",
    "cs": "zírou uan tú srí fór fajv siks sevn ejt najn",
    "hu": "zíró uan tú szrí fór fájv sziksz szeven éjt nájn",
    "fi": "siirou uan tuu srii foor faiv siks seven eit nain",
    "tr": "ziro van tu tri for fayv siks sevın eyt nayn",
    "el": "ζίροου ουάν του θρι φορ φάιβ σιξ σέβεν έιτ νάιν",
    "ru": "зироу уан ту сри фор файв сикс севен эйт найн",
    "hi": "ज़ीरो वन टू थ्री फ़ोर फ़ाइव सिक्स सेवन एट नाइन",
    "id": "ziro wan tu tri for faif siks seven eit nain",
}

__all__ = ["SPELLINGS", "Accented"]


class Accented:
    """Voices of espeak-ng's other languages, each with its variants; digits alone."""

    name = "accents"
    voices = tuple(f"{language}+{v}" for language in SPELLINGS for v in VARIANTS)

    def __init__(self) -> None:
        self._espeak = Espeak()

    def speak(
        self, words: Sequence[str], voice: str, rng: np.random.Generator
    ) -> Speech | None:
        if len(words) != 1 or words[0] not in DIGITS:
            return None
        spellings = SPELLINGS[voice.partition("+")[0]].split()
        spoken = spellings[DIGITS.index(words[0])]
        return self._espeak.speak([spoken], voice, rng)
