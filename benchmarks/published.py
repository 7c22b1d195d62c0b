"""Error rates that others publish of this model, by set and delay."""

from dataclasses import dataclass

__all__ = ["PublishedRow", "published"]

_CARD = "model card, bf16"
_CARD_NORMALIZER = "not published"
_RIVAL = "transcribe.cpp"


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A figure in per cent of a set at a delay; `n_utterances` where it is told."""

    name: str
    delay_ms: int
    system: str
    normalizer: str
    error_rate: float
    n_utterances: int | None = None


# The card's FLEURS table, in its order of languages.
_FLEURS_NAMES = [
    "ar_eg",
    "de_de",
    "en_us",
    "es_419",
    "fr_fr",
    "hi_in",
    "it_it",
    "nl_nl",
    "pt_br",
    "cmn_hans_cn",
    "ja_jp",
    "ko_kr",
    "ru_ru",
]
_FLEURS = {
    160: "24.33 9.50 6.46 5.34 9.75 15.28 5.59 11.39 10.01 17.67 19.17 19.81 9.53",
    240: "23.95 8.15 5.91 4.59 8.00 14.26 4.41 9.23 7.51 13.84 15.17 17.56 7.87",
    480: "22.53 6.19 4.90 3.31 6.42 12.88 3.27 7.07 5.03 10.45 9.59 15.74 6.02",
    960: "20.32 4.87 4.34 2.98 5.68 11.82 2.46 6.76 4.57 8.99 6.80 14.90 5.56",
    2400: "14.71 4.15 4.05 2.71 5.23 10.73 2.37 5.91 3.93 8.48 5.50 14.30 5.41",
}
# Its English tables, at 480 ms.
_ENGLISH = {
    "meanwhile": 5.05,
    "earnings21": 10.23,
    "earnings22": 12.30,
    "tedlium/test": 3.17,
    "chime-4/et05_real": 10.50,
    "gigaspeech/test": 7.35,
    "ami-ihm/test": 15.05,
    "switchboard/hub5e00": 11.65,
}
# What makes a figure one of another set than ours.
_REMARKS = {
    "earnings21": "calls cut to 10 minutes",
    "earnings22": "calls cut to 10 minutes",
    "gigaspeech/test": "2000 of the segments",
    "chime-4/et05_real": "part not told",
}
_LIBRISPEECH = {
    "transformers, bf16": 2.08,
    f"{_RIVAL}, BF16": 2.08,
    f"{_RIVAL}, F16": 2.09,
    f"{_RIVAL}, Q8_0": 2.07,
    f"{_RIVAL}, Q6_K": 2.08,
    f"{_RIVAL}, Q5_K_M": 2.08,
    f"{_RIVAL}, Q4_K_M": 2.08,
}
_N_TEST_CLEAN = 2620


def _all() -> list[PublishedRow]:
    rows = [
        PublishedRow(f"fleurs/{name}", delay, _CARD, _CARD_NORMALIZER, float(rate))
        for delay, rates in _FLEURS.items()
        for name, rate in zip(_FLEURS_NAMES, rates.split(), strict=True)
    ]
    for name, rate in _ENGLISH.items():
        remark = _REMARKS.get(name)
        system = f"{_CARD} ({remark})" if remark else _CARD
        rows.append(PublishedRow(name, 480, system, _CARD_NORMALIZER, rate))
    rows += [
        PublishedRow(
            "librispeech/test-clean", 480, system, "english", rate, _N_TEST_CLEAN
        )
        for system, rate in _LIBRISPEECH.items()
    ]
    return rows


_ROWS = _all()


def published(name: str, delay_ms: int, n_utterances: int) -> list[PublishedRow]:
    """Return the figures of the same set at the same delay.

    A figure whose number of utterances is told is of the same set only with as many.
    """
    return [
        row
        for row in _ROWS
        if (row.name, row.delay_ms) == (name, delay_ms)
        and row.n_utterances in (None, n_utterances)
    ]
