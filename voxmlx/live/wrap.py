"""Text that grows at its end -> terminal lines that never change once complete."""

from rich.cells import cell_len

from voxmlx.text.line_breaks import (
    Break,
    best_break,
    ends_clause,
    is_joined,
    may_break,
    printable,
)

__all__ = ["Wrapper"]


class Wrapper:
    """Breaks growing text at spaces, and anywhere between wide characters.

    Widths are in terminal cells. Only `current`, the last line, may still grow.
    """

    def __init__(self) -> None:
        self.current = ""

    def copy(self) -> "Wrapper":
        """Return another one with the same last line."""
        wrapper = Wrapper()
        wrapper.current = self.current
        return wrapper

    def feed(self, text: str, width: int) -> list[str]:
        """Add text; the lines of at most `width` cells that it completed."""
        self.current = (self.current + printable(text)).lstrip(" ")
        lines: list[str] = []
        while cell_len(self.current.rstrip(" ")) > width:
            line, self.current = _first_line(self.current, width)
            lines.append(line)
        return lines

    def end_paragraph(self) -> list[str]:
        """Close the line: itself, unless it is empty."""
        line, self.current = self.current.rstrip(" "), ""
        return [line] if line else []


def _first_line(text: str, width: int) -> tuple[str, str]:
    """The best first line of at most `width` cells, and the rest."""
    n_cells = 0
    end = len(text)
    breaks: list[Break] = []
    for i, character in enumerate(text):
        if i and may_break(before := text[i - 1], character):
            is_space = before == " "
            is_after_clause = ends_clause(text[:i].rstrip(" "))
            breaks.append(Break(i, n_cells, is_space, is_after_clause))
        n_cells += cell_len(character)
        if n_cells > width and character != " ":
            end = i
            break
    best = best_break(breaks, width)
    # A word wider than the line is cut, but a character never from its accents.
    cut = best.index if best is not None else _whole_characters(text, max(1, end))
    return text[:cut].rstrip(" "), text[cut:].lstrip(" ")


def _whole_characters(text: str, cut: int) -> int:
    while cut < len(text) and is_joined(text[cut]):
        cut += 1
    return cut
