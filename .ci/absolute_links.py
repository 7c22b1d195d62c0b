"""Makes relative links of a Markdown file absolute, for the registry's page.

    python .ci/absolute_links.py README.md

Links in the repository are relative: they work in a clone. The registry shows the
README alone, where they would lead nowhere.
"""

import argparse
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

_INLINE = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s]+)")
_DEFINED = re.compile(r"(?m)^(\[[^\]]+\]: )(?![a-z]+:|#)(\S+)$")


def absolute(text: str, base: str) -> str:
    """Return `text` with `base` in front of every relative link."""
    text = _INLINE.sub(rf"{base}/\1", text)
    return _DEFINED.sub(rf"\1{base}/\2", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("file", type=Path)
    path = parser.parse_args().file
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    base = f"{project['project']['urls']['Repository']}/blob/main"
    path.write_text(absolute(path.read_text(encoding="utf-8"), base), encoding="utf-8")


if __name__ == "__main__":
    main()
