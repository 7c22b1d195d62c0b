"""Sentences of the limited domain: lower case, no punctuation, about 250 words."""

# ruff: noqa: SIM905 -- a list of words reads better as a line of words

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

DIGITS = "zero one two three four five six seven eight nine".split()
TEENS = (
    "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth".split()
TEEN_ORDINALS = (
    "tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth "
    "eighteenth nineteenth"
).split()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
MONTHS = (
    "january february march april may june july august september october november "
    "december"
).split()
SPELLING = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike "
    "november oscar papa quebec romeo sierra tango uniform victor whiskey xray yankee "
    "zulu"
).split()
ROOMS = "kitchen bedroom bathroom office garage".split()
DEVICES = "light lights radio television heating fan music camera".split()
SKIES = "sunny cloudy rainy windy foggy clear".split()
COLOURS = "red green blue yellow black white orange".split()
DIRECTIONS = "left right north south east west forward back".split()
THINGS = "door window box table phone book car".split()
PEOPLE = "mom dad anna david maria john".split()
RELATIVE_DAYS = "today tomorrow yesterday tonight".split()
DURATIONS = "second seconds minute minutes hour hours days weeks".split()
OPENABLE = "door window windows garage box".split()
GREETINGS = (
    "hello",
    "goodbye",
    "thank you",
    "yes please",
    "no thank you",
    "one moment please",
    "good morning",
    "good evening",
    "good night",
    "please try again",
    "how are you",
    "hello world",
)

Rng = np.random.Generator
Words = list[str]

__all__ = ["FIXED_SENTENCES", "isolated_word", "sentence", "vocabulary"]


def _pick(rng: Rng, words: Sequence[str] | str) -> str:
    """One of the words, which may be given as one string."""
    choices = words.split() if isinstance(words, str) else words
    return choices[rng.integers(len(choices))]


def _maybe(rng: Rng, odds: float, words: Words) -> Words:
    return words if rng.random() < odds else []


def below_hundred(rng: Rng) -> Words:
    kind = rng.random()
    if kind < 0.25:
        return [_pick(rng, DIGITS[1:])]
    if kind < 0.5:
        return [_pick(rng, TEENS)]
    return [_pick(rng, TENS), *_maybe(rng, 0.7, [_pick(rng, DIGITS[1:])])]


def number(rng: Rng) -> Words:
    kind = rng.random()
    digit = _pick(rng, DIGITS[1:])
    if kind < 0.45:
        return below_hundred(rng)
    if kind < 0.75:
        tail = _maybe(rng, 0.8, below_hundred(rng))
        return [digit, "hundred", *_maybe(rng, 0.3, ["and"]), *tail]
    if kind < 0.92:
        hundreds = _maybe(rng, 0.6, [digit, "hundred"])
        tail = _maybe(rng, 0.6, below_hundred(rng))
        return [*below_hundred(rng), "thousand", *hundreds, *tail]
    return [digit, "million", *_maybe(rng, 0.5, [*below_hundred(rng), "thousand"])]


def digits(rng: Rng, n_digits: int | None = None) -> Words:
    """Single digits, now and then `oh` for zero."""
    if n_digits is None:
        n_digits = int(rng.choice([1, 2, 3, 3, 4, 4, 5, 6, 7, 8, 10]))
    choices = [
        DIGITS if rng.random() > 0.15 else [*DIGITS, "oh"] for _ in range(n_digits)
    ]
    return [_pick(rng, words) for words in choices]


def clock(rng: Rng) -> Words:
    kind = rng.random()
    hour = _pick(rng, DIGITS[1:] + TEENS[:3])
    if kind < 0.15:
        return [hour, "oclock"]
    if kind < 0.28:
        return [_pick(rng, "half quarter"), "past", hour]
    if kind < 0.36:
        return ["quarter", "to", hour]
    if kind < 0.42:
        return [_pick(rng, "noon midnight")]
    return [hour, *_minute(rng), *_maybe(rng, 0.45, [_pick(rng, "a p"), "m"])]


def _minute(rng: Rng) -> Words:
    kind = rng.random()
    if kind < 0.2:
        return ["oh", _pick(rng, DIGITS[1:])]
    if kind < 0.45:
        return [_pick(rng, TEENS)]
    return [_pick(rng, TENS[:4]), *_maybe(rng, 0.6, [_pick(rng, DIGITS[1:])])]


def ordinal(rng: Rng) -> Words:
    kind = rng.random()
    if kind < 0.35:
        return [_pick(rng, ORDINALS)]
    if kind < 0.65:
        return [_pick(rng, TEEN_ORDINALS)]
    if kind < 0.8:
        return [_pick(rng, "twentieth thirtieth")]
    return [_pick(rng, "twenty thirty"), _pick(rng, ORDINALS)]


def date(rng: Rng) -> Words:
    return [*_maybe(rng, 0.4, [_pick(rng, DAYS)]), _pick(rng, MONTHS), *ordinal(rng)]


def day(rng: Rng) -> str:
    return _pick(rng, DAYS + RELATIVE_DAYS)


def _spelt(rng: Rng, n_words: int) -> Words:
    return [_pick(rng, SPELLING) for _ in range(n_words)]


def _fill(rng: Rng, pattern: str) -> Words:
    """A template's words; `{name}` is drawn from `_SLOTS`, `a|b` is one of the two."""
    words: Words = []
    for part in pattern.split():
        if part.startswith("{"):
            drawn = _SLOTS[part[1:-1]](rng)
            words += [drawn] if isinstance(drawn, str) else drawn
        elif part != "-":
            words += [w for w in [_pick(rng, part.replace("|", " "))] if w != "-"]
    return words


_SLOTS: dict[str, Callable[[Rng], str | Words]] = {
    "n": below_hundred,
    "number": number,
    "digits": digits,
    "decimals": lambda rng: digits(rng, int(rng.integers(1, 4))),
    "few_digits": lambda rng: digits(rng, int(rng.integers(1, 5))),
    "clock": clock,
    "date": date,
    "day": day,
    "duration": lambda rng: [*below_hundred(rng), _pick(rng, DURATIONS)],
    "spelt": lambda rng: _spelt(rng, int(rng.choice([1, 2, 3, 3, 4, 5, 6]))),
    "spelt2": lambda rng: _spelt(rng, 2),
    "sky": lambda rng: _pick(rng, SKIES),
    "room": lambda rng: _pick(rng, ROOMS),
    "device": lambda rng: _pick(rng, DEVICES),
    "openable": lambda rng: _pick(rng, OPENABLE),
    "person": lambda rng: _pick(rng, PEOPLE),
    "direction": lambda rng: _pick(rng, DIRECTIONS),
    "colour": lambda rng: _pick(rng, COLOURS),
    "thing": lambda rng: _pick(rng, THINGS),
    "greeting": lambda rng: _pick(rng, GREETINGS).split(),
}

# Weight and pattern; `-` stands for nothing.
_TEMPLATES: tuple[tuple[float, str], ...] = (
    (6, "{digits}"),
    (2, "my number is {digits}"),
    (1, "extension {digits}"),
    (5, "{number}"),
    (1, "{number} dollars"),
    (1, "{n} percent"),
    (1, "plus|minus {n} point {decimals}"),
    (0.8, "{n} plus|minus|times {n}"),
    (0.8, "what is {n} plus|minus|times {n}"),
    (0.4, "{n} plus|minus|times {n} equals {n}"),
    (3, "the time is {clock}"),
    (2, "{clock}"),
    (1, "what time is it"),
    (1.2, "wake me up at {clock}"),
    (0.8, "wake me up at {clock} {day}"),
    (2, "set a|an alarm for {clock}"),
    (3, "set a timer for {duration}"),
    (3, "{date}"),
    (1, "today is {date}"),
    (0.5, "see you on {date}"),
    (0.5, "see you on {date} at {clock}"),
    (1, "the weather {day} will be {sky}"),
    (1, "the weather {day} will be {sky} and warm|cold|hot"),
    (2, "the temperature is {n} degrees"),
    (2, "a high of {n} and a low of {n}"),
    (1, "a chance of rain|snow {day}"),
    (1.6, "turn on|off the {device}"),
    (2.4, "turn on|off the {room} {device}"),
    (1, "switch on|off the {device} in the {room}"),
    (2, "set the volume|brightness|temperature to {n} percent|degrees"),
    (2, "open|close the {openable}"),
    (2, "play|pause|stop the next|previous|- song|music|message"),
    (1.4, "call|message {person}"),
    (0.6, "call|message {person} {day}"),
    (1, "send a message to {person}"),
    (1, "go|turn {direction}"),
    (1, "go|turn {direction} {n} meters"),
    (2, "the {colour} {thing} is on the {thing}"),
    (0.5, "the {colour} {thing} is on the left|right"),
    (4, "{spelt}"),
    (1, "{spelt2} {few_digits}"),
    (1, "{greeting}"),
    (1, "hello|goodbye|please {person}"),
)
FIXED_SENTENCES = (
    *GREETINGS,
    *(pattern for _, pattern in _TEMPLATES if not set("{|") & set(pattern)),
)
"""What the grammar says in one way only: if held out, it would never be learnt."""
_WEIGHTS = np.array([weight for weight, _ in _TEMPLATES])


def _in_grammar(rng: Rng) -> Words:
    kind = rng.choice(len(_TEMPLATES), p=_WEIGHTS / _WEIGHTS.sum())
    return _fill(rng, _TEMPLATES[kind][1])


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word of the domain, in order."""
    rng = np.random.default_rng(0)
    return tuple(sorted({word for _ in range(20_000) for word in _in_grammar(rng)}))


def sentence(rng: Rng, salad: float = 0.3) -> Words:
    """A sentence, or with odds `salad` any words in a row, which no grammar foretells."""
    if rng.random() < salad:
        n_words = int(rng.choice([1, 1, 2, 3, 4, 5, 6, 8]))
        return [_pick(rng, list(vocabulary())) for _ in range(n_words)]
    return _in_grammar(rng)


def isolated_word(rng: Rng) -> Words:
    """One word, every other time a digit."""
    return [_pick(rng, DIGITS if rng.random() < 0.5 else vocabulary())]
