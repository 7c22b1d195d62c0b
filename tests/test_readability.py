"""README and guide are short sentences."""

from pathlib import Path
from statistics import mean

import pytest

from tests.markdown import GUIDE, PROJECT, README, ROOT, sentences

PAGES = [README, *GUIDE, *PROJECT]
MAX_MEAN_WORDS = 16
MAX_WORDS = 30


def test_sentences_are_counted_as_people_do(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading is none\n\nOne two three. Four `voxmlx live --demo` six!\n\n"
        "| a | table |\n|---|---|\n\n```sh\nnor code here\n```\n\n"
        "- an item is\n- [a link](https://there/) too, of 0.1 s\n\n[a]: docs/a.md\n",
        encoding="utf-8",
    )
    assert [len(sentence) for sentence in sentences(page)] == [3, 3, 3, 6]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_sentence_has_16_words_on_average_and_no_endless_one(page: Path) -> None:
    found = sentences(page)
    longest = max(found, key=len)
    assert len(longest) <= MAX_WORDS, " ".join(longest)
    assert mean(map(len, found)) <= MAX_MEAN_WORDS


def test_the_readme_fits_150_lines() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150
