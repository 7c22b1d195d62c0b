"""What a Markdown page holds: prose, code blocks and links."""

import re
from pathlib import Path

__all__ = ["GUIDE", "PROJECT", "README", "ROOT", "blocks", "links", "sentences"]

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
GUIDE = sorted((ROOT / "docs").glob("*.md"))
PROJECT = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]

_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of one language, without their indentation."""
    text = page.read_text(encoding="utf-8")
    return [
        re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)
        for indent, found, body in _FENCED.findall(text)
        if found == language
    ]


def links(page: Path) -> list[str]:
    """Return the targets of links and images, inline or by reference."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(
        r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE
    )


def sentences(page: Path) -> list[list[str]]:
    """Return the words of every sentence of the page's prose.

    Code blocks, tables, headings and definitions of links are no prose. An item of a
    list ends a sentence, and so do a colon and a semicolon at the end of a paragraph.
    A span of code is one word.
    """
    text = _FENCED.sub("\n\n", page.read_text(encoding="utf-8"))
    text = re.sub(r"^(#|\||:::|\[[^\]]+\]:).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`", "code", text)
    text = re.sub(r"!?\[([^\]]*)\](\([^)]*\)|\[[^\]]*\])?", r"\1", text)
    text = re.sub(r"^\s*([-*]|\d+\.) ", "\n\n", text, flags=re.MULTILINE)
    text = text.replace("*", "")
    found: list[list[str]] = []
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in re.split(r"(?<=[.!?])[\")]*\s+", paragraph.strip()):
            words = re.findall(r"[^\W_][\w'’.,:/-]*", sentence)
            if words:
                found.append(words)
    return found
