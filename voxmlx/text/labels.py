"""Labels of speakers: no two of them are the same."""

from collections.abc import Sequence

__all__ = ["distinct_labels"]


def distinct_labels(labels: Sequence[str]) -> list[str]:
    """Return the labels, with numbers behind those that stand there before.

    Example: me, them, me -> me, them, me 2.
    """
    chosen: list[str] = []
    for label in labels:
        number, candidate = 2, label
        while candidate in chosen:
            candidate = f"{label} {number}"
            number += 1
        chosen.append(candidate)
    return chosen
