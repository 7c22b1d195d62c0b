"""Arguments of words and subtitles, and the options that follow from them."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar, overload

from voxmlx.cli.arguments import whole_number
from voxmlx.decoding.hotwords import (
    BOOST,
    HotwordTrie,
    read_hotword_trie,
    read_hotwords,
)
from voxmlx.decoding.rules import GUARDS
from voxmlx.session_options import MAX_ALTERNATIVES, MAX_BOOST
from voxmlx.text.replacements import read_replacements
from voxmlx.text.subtitles import CueRules
from voxmlx.text.tokenizer import Tokenizer
from voxmlx.text.utterances import DEFAULT_PAUSE_MS, MAX_PAUSE_MS, MIN_PAUSE_MS

__all__ = [
    "WordOptions",
    "add_subtitle_arguments",
    "add_word_arguments",
    "cue_rules",
    "word_options",
    "word_replacements",
]


def add_word_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what concerns words: --hotwords, --replace, --no-guards, --pause, ..."""
    group = parser.add_argument_group("words")
    group.add_argument(
        "--hotwords",
        metavar="FILE",
        type=Path,
        help="names and rare words to listen for: UTF-8, one word or phrase per line",
    )
    group.add_argument(
        "--hotword-boost",
        metavar="X",
        type=_boost,
        default=BOOST,
        help="how much they are favoured, in logits: more finds more of them, also "
        "where they were not said (default: %(default)s)",
    )
    group.add_argument(
        "--replace",
        metavar="FILE",
        type=Path,
        help="write final words otherwise: UTF-8, a line `heard = written` for each",
    )
    group.add_argument(
        "--no-guards",
        action="store_true",
        help="leave the model alone when it falls silent over speech or into a loop",
    )
    group.add_argument(
        "--alternatives",
        metavar="N",
        type=whole_number(0, MAX_ALTERNATIVES),
        default=0,
        help="show the N most probable tokens of every 80 ms (json and jsonl)",
    )
    group.add_argument(
        "--pause",
        metavar="MS",
        type=whole_number(MIN_PAUSE_MS, MAX_PAUSE_MS),
        default=DEFAULT_PAUSE_MS,
        help="silence that ends an utterance (default: %(default)s)",
    )


def add_subtitle_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --line-chars, --lines, --reading-speed and --word-times."""
    group = parser.add_argument_group("subtitles (srt and vtt)")
    rules = CueRules()
    group.add_argument(
        "--line-chars",
        metavar="N",
        type=whole_number(1, 1000),
        default=rules.max_line_chars,
        help="longest line; wide characters count two (default: %(default)s)",
    )
    group.add_argument(
        "--lines",
        metavar="N",
        type=whole_number(1, 100),
        default=rules.max_lines,
        help="most lines shown at once (default: %(default)s)",
    )
    group.add_argument(
        "--reading-speed",
        metavar="N",
        type=whole_number(1, 1000),
        default=round(rules.chars_per_second),
        help="characters a second for which a subtitle stays up, where the next one "
        "leaves time (default: %(default)s)",
    )
    group.add_argument(
        "--word-times",
        action="store_true",
        help="give every word of a vtt its own time tag",
    )


H = TypeVar("H")


class WordOptions(TypedDict, Generic[H]):
    """Options of a Session, as add_word_arguments parsed them."""

    guards: Sequence[str]
    hotwords: H
    hotword_boost: float
    replacements: Mapping[str, str]
    alternatives: int
    pause_ms: int


@overload
def word_options(arguments: argparse.Namespace) -> WordOptions[Sequence[str]]: ...
@overload
def word_options(
    arguments: argparse.Namespace, tokenizer: Tokenizer
) -> WordOptions[Sequence[str] | HotwordTrie]: ...
def word_options(
    arguments: argparse.Namespace, tokenizer: Tokenizer | None = None
) -> WordOptions[Any]:
    """The Session's options that the arguments ask for. Raises HotwordError.

    Without a tokenizer, all that can be wrong before a model is loaded is checked. With
    one, hot words are a trie, which all sessions share.
    """
    path, boost = arguments.hotwords, arguments.hotword_boost
    hotwords: Sequence[str] | HotwordTrie = ()
    if path is not None:
        hotwords = (
            read_hotwords(path)
            if tokenizer is None
            else read_hotword_trie(path, tokenizer, boost=boost)
        )
    return WordOptions(
        guards=() if arguments.no_guards else tuple(GUARDS),
        hotwords=hotwords,
        hotword_boost=boost,
        replacements=word_replacements(arguments),
        alternatives=arguments.alternatives,
        pause_ms=arguments.pause,
    )


def word_replacements(arguments: argparse.Namespace) -> Mapping[str, str]:
    """Return what the file of --replace says, if there is one. Raises HotwordError."""
    path = arguments.replace
    return {} if path is None else read_replacements(path)


def cue_rules(arguments: argparse.Namespace) -> CueRules:
    """Return the rules for subtitles that the arguments ask for."""
    return CueRules(
        max_line_chars=arguments.line_chars,
        max_lines=arguments.lines,
        chars_per_second=arguments.reading_speed,
        pause_ms=arguments.pause,
    )


def _boost(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= MAX_BOOST:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number above 0 and at most {MAX_BOOST}"
        )
    return number
