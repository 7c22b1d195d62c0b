"""The page in a browser: a microphone is heard, words are shown, kept, reachable."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pysrt
import pytest
import soundfile

from tests.serve.browser import Page, browsing
from tests.serve.loopback import Loopback, serving
from voxmlx import Checkpoint, demo

# Where to keep a picture of the page, for the README.
SCREENSHOT = os.environ.get("VOXMLX_SCREENSHOT")

SAID = "seven oh seven zero nine two turn on the heating what time is it"


@pytest.fixture
def page(tmp_path: Path, sample: np.ndarray) -> Iterator[Page]:
    """Its microphone hears what is SAID, after two seconds of silence."""
    words = (demo.DIRECTORY / "sample.txt").read_text("utf-8").split()
    assert words[: len(SAID.split())] == SAID.split()
    heard = tmp_path / "heard.wav"
    before, after = np.zeros(2 * 16_000), np.zeros(3 * 16_000)
    sound = np.concatenate([before, sample[: int(6.9 * 16_000)], after])
    soundfile.write(heard, sound, 16_000, subtype="PCM_16")
    with browsing(heard, tmp_path / "browser") as page:
        yield page


def test_the_page_shows_and_keeps_what_the_microphone_hears(
    server: Loopback, page: Page, tmp_path: Path
) -> None:
    page.resize(320, 480)
    page.open(server.http)
    page.wait("document.getElementById('model').textContent === 'demo'")
    page.press("Tab")
    assert page.value("document.activeElement.textContent") == "Start listening"
    page.press("Enter")
    page.wait("document.getElementById('state').textContent === 'Listening'")
    # Not only in the end: the first words are there while the rest is spoken.
    shown = "document.getElementById('captions').innerText"
    page.wait(f"{shown}.trim().split(/\\s+/).length >= 4")
    assert len(page.value(shown).split()) < len(SAID.split())
    page.wait(f"{shown}.trim().split(/\\s+/).length >= {len(SAID.split())}")
    page.wait("document.getElementById('lag').textContent.startsWith('lag ')")
    # Captions that are longer than the window scroll in it, to the latest.
    captions = "document.getElementById('captions')"
    above, visible, height = page.value(
        f"['scrollTop', 'clientHeight', 'scrollHeight'].map((name) => {captions}[name])"
    )
    assert above > 0
    assert above + visible == pytest.approx(height, abs=1)
    assert page.value("document.documentElement.scrollHeight <= innerHeight")
    if SCREENSHOT is not None:
        page.resize(800, 420)
        page.screenshot(Path(SCREENSHOT))
    page.press("Enter")
    page.wait("document.getElementById('state').textContent === 'Ended'")
    assert page.value(shown).split() == SAID.split()
    # Screen readers are told of new captions, politely.
    assert page.value(f"{captions}.getAttribute('aria-live')") == "polite"

    page.value("URL.createObjectURL = (blob) => { saved = blob; return '#'; }")
    kept = {}
    for kind in ("txt", "srt"):
        page.value(f"document.getElementById('save-{kind}').click()")
        kept[kind] = tmp_path / f"captions.{kind}"
        kept[kind].write_text(page.value("saved.text()"), encoding="utf-8")
    assert kept["txt"].read_text("utf-8").split() == SAID.split()
    cues = pysrt.open(str(kept["srt"]))
    assert " ".join(cue.text for cue in cues).split() == SAID.split()
    # Two seconds of silence, less what went before the page listened; then speech.
    assert 0 < cues[0].start.ordinal < 4000
    assert cues[-1].end.ordinal - cues[0].start.ordinal == pytest.approx(5960, abs=300)

    resources = page.value(
        "performance.getEntriesByType('resource').map(({ name }) => name)"
    )
    assert resources
    assert all(name.startswith(server.http) for name in resources)
    assert page.errors == []


def test_the_page_is_light_or_dark_as_the_system_is(
    server: Loopback, page: Page
) -> None:
    page.open(server.http)
    brightness: dict[str, list[int]] = {}
    for scheme in ("light", "dark"):
        page.show_in(scheme)
        brightness[scheme] = page.value(
            "['backgroundColor', 'color'].map((name) =>"
            " getComputedStyle(document.body)[name].match(/\\d+/g)"
            ".slice(0, 3).reduce((sum, one) => sum + Number(one), 0))"
        )
    ground, ink = brightness["light"]
    assert ground > 700 > 120 > ink
    ground, ink = brightness["dark"]
    assert ink > 600 > 120 > ground


def test_a_key_of_any_characters_can_be_used_on_the_page(
    demo_checkpoint: Checkpoint, page: Page
) -> None:
    key = "q+/Zw8== 鍵"
    with serving(demo_checkpoint, keys=(key,)) as server:
        page.open(server.http)
        page.wait("!document.getElementById('key-field').hidden")
        page.value(f"document.getElementById('key').value = '{key}'")
        page.value("document.getElementById('listen').click()")
        page.wait("document.getElementById('state').textContent === 'Listening'")
