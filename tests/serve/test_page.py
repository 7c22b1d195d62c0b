"""The page in a browser: a microphone is heard, words are shown, kept, reachable."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pysrt
import pytest
import soundfile
import webvtt

from tests.live.relay import relaying
from tests.serve.browser import Page, browsing
from tests.serve.loopback import Loopback, serving
from voxmlx import Checkpoint, demo

# Where to keep pictures of the page, for the guide: VOXMLX_SCREENSHOTS=docs.
SCREENSHOTS = os.environ.get("VOXMLX_SCREENSHOTS")

SAID = "seven oh seven zero nine two turn on the heating what time is it"
N_SAID = len(SAID.split())
SHOWN = "document.getElementById('captions').innerText"


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is SAID, after two seconds of silence."""
    words = (demo.DIRECTORY / "sample.txt").read_text("utf-8").split()
    assert words[:N_SAID] == SAID.split()
    path = tmp_path_factory.mktemp("sound") / "heard.wav"
    sample = soundfile.read(demo.SAMPLE, dtype="float32")[0]
    before, after = np.zeros(2 * 16_000), np.zeros(3 * 16_000)
    sound = np.concatenate([before, sample[: int(6.9 * 16_000)], after])
    soundfile.write(path, sound, 16_000, subtype="PCM_16")
    return path


@pytest.fixture
def once(heard: Path, tmp_path: Path) -> Iterator[Page]:
    """A browser of its own, which hears what is SAID once."""
    with browsing(heard, tmp_path / "browser") as page:
        yield page


@pytest.fixture(scope="module")
def browser(heard: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    home = tmp_path_factory.mktemp("browser")
    with browsing(heard, home, is_endless=True) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """A browser that hears what is SAID again and again, with nothing kept."""
    browser.resize(800, 600)
    browser.errors.clear()
    yield browser
    browser.value("localStorage.clear()")
    browser.open("about:blank")


def is_said(text: str) -> bool:
    """Return whether words follow each other as they are SAID, from any one on."""
    return " ".join(text.split()) in " ".join([SAID] * 20)


def text_of(page: Page, name: str) -> str:
    return page.value(f"document.getElementById('{name}').textContent")


def wait_for_state(page: Page, text: str) -> None:
    page.wait(f"document.getElementById('state').textContent.includes({text!r})")


def press(page: Page, name: str) -> None:
    page.value(f"document.getElementById('{name}').click()")


def wait_for_words(page: Page, n: int) -> None:
    page.wait(f"{SHOWN}.trim().split(/\\s+/).filter(Boolean).length >= {n}")


def saved(page: Page, kind: str) -> str:
    page.value("URL.createObjectURL = (blob) => { saved = blob; return '#'; }")
    press(page, f"save-{kind}")
    return page.value("saved.text()")


def drop(page: Page, path: Path) -> None:
    """Drop a file on the page."""
    content = base64.b64encode(path.read_bytes()).decode()
    page.value(
        f"""(() => {{
            const bytes = Uint8Array.from(atob({content!r}), (c) => c.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], {path.name!r}));
            for (const type of ['dragover', 'drop']) {{
                const options = {{ dataTransfer: carried, bubbles: true }};
                document.body.dispatchEvent(new DragEvent(type, options));
            }}
        }})()"""
    )


def keep_picture(page: Page, name: str, width: int, height: int) -> None:
    if SCREENSHOTS is not None:
        page.resize(width, height)
        page.value("new Promise(requestAnimationFrame)")
        page.screenshot(Path(SCREENSHOTS) / name)


def test_the_page_shows_and_keeps_what_the_microphone_hears(
    server: Loopback, once: Page, tmp_path: Path
) -> None:
    page = once
    page.resize(320, 480)
    page.open(server.http)
    page.wait("document.getElementById('model').textContent === 'demo'")
    for _ in range(4):
        press(page, "larger")
    page.press("Tab")
    assert page.value("document.activeElement.textContent") == "Start listening"
    page.press("Enter")
    wait_for_state(page, "Listening")
    # Not only in the end: the first words are there while the rest is spoken.
    wait_for_words(page, 4)
    assert len(page.value(SHOWN).split()) < N_SAID
    wait_for_words(page, N_SAID)
    page.wait("document.getElementById('lag').textContent.startsWith('lag ')")
    # Captions that are longer than the window scroll in it, to the latest.
    captions = "document.getElementById('captions')"
    above, visible, height = page.value(
        f"['scrollTop', 'clientHeight', 'scrollHeight'].map((name) => {captions}[name])"
    )
    assert above > 0
    assert above + visible == pytest.approx(height, abs=1)
    assert page.value("document.documentElement.scrollHeight <= innerHeight")
    for _ in range(4):
        press(page, "smaller")
    keep_picture(page, "page.png", 800, 420)
    page.press("Enter")
    wait_for_state(page, "Ended")
    assert page.value(SHOWN).split() == SAID.split()
    # Screen readers are told of new captions, politely, in their language.
    assert page.value(f"{captions}.getAttribute('aria-live')") == "polite"
    assert page.value(f"{captions}.lang") == "en"

    kept = {}
    for kind in ("txt", "srt", "vtt"):
        kept[kind] = tmp_path / f"captions.{kind}"
        kept[kind].write_text(saved(page, kind), encoding="utf-8")
    assert kept["txt"].read_text("utf-8").split() == SAID.split()
    cues = pysrt.open(str(kept["srt"]))
    assert " ".join(cue.text for cue in cues).split() == SAID.split()
    # Two seconds of silence, less what went before the page listened; then speech.
    assert 0 < cues[0].start.ordinal < 4000
    assert cues[-1].end.ordinal - cues[0].start.ordinal == pytest.approx(5960, abs=300)
    captioned = webvtt.read(str(kept["vtt"]))
    assert [one.raw_text for one in captioned] == [cue.text for cue in cues]

    resources = page.value(
        "performance.getEntriesByType('resource').map(({ name }) => name)"
    )
    assert resources
    assert all(name.startswith(server.http) for name in resources)
    assert page.errors == []


def test_a_reload_keeps_captions_and_choices_until_they_are_cleared(
    server: Loopback, page: Page
) -> None:
    page.open(server.http)
    press(page, "listen")
    wait_for_words(page, 9)
    # In the middle of an utterance, and of listening.
    for name, value in (("language", "de"), ("microphone", "")):
        page.value(
            f"(() => {{ const one = document.getElementById('{name}'); one.value ="
            f" '{value}'; one.dispatchEvent(new Event('change')); }})()"
        )
    press(page, "larger")
    shown = page.value(SHOWN).split()
    page.open(server.http)
    page.wait("document.getElementById('model').textContent === 'demo'")
    again = page.value(SHOWN).split()
    assert again[: len(shown)] == shown
    assert page.value("document.getElementById('captions').lang") == "de"
    assert text_of(page, "size") == "125 %"
    page.value(
        "(() => { const one = document.getElementById('delay'); one.value = '960';"
        " one.dispatchEvent(new Event('change')); })()"
    )
    page.open(server.http)
    assert page.value("document.getElementById('delay').value") == "960"
    assert saved(page, "txt").split() == again
    press(page, "clear")
    page.open(server.http)
    page.wait("document.getElementById('model').textContent === 'demo'")
    assert page.value(SHOWN).strip() == ""
    assert page.value("document.getElementById('clear').disabled")
    assert page.errors == []


def test_a_server_that_is_away_for_a_while_costs_no_word(
    server: Loopback, page: Page
) -> None:
    with relaying(server.port) as relay:
        page.open(relay.address.replace("ws:", "http:"))
        press(page, "listen")
        wait_for_words(page, 8)
        relay.cut()
        wait_for_state(page, "Trying again")
        assert "The server cannot be reached" in text_of(page, "state")
        relay.open()
        wait_for_state(page, "nothing was missed")
        wait_for_words(page, 2 * N_SAID)
        # The first word may have begun before the page listened.
        assert is_said(page.value(SHOWN).split(maxsplit=1)[1].rsplit(maxsplit=1)[0])


def test_a_wrong_key_is_told_and_never_shown(
    demo_checkpoint: Checkpoint, page: Page, sample: np.ndarray, tmp_path: Path
) -> None:
    wrong, right = "q+/secret==", "q+/Zw8== 鍵"
    path = tmp_path / "talk.wav"
    soundfile.write(path, sample[: 2 * 16_000], 16_000)
    with serving(demo_checkpoint, keys=(right,)) as server:
        page.open(server.http)
        page.wait("!document.getElementById('key-field').hidden")
        page.value(f"document.getElementById('key').value = '{wrong}'")
        press(page, "listen")
        wait_for_state(page, "The API key is missing or wrong")
        assert page.value("document.activeElement.id") == "key"
        assert "Start listening" in text_of(page, "listen")
        drop(page, path)
        wait_for_state(page, "talk.wav: The API key is missing or wrong")
        assert "secret" not in page.value("document.documentElement.outerHTML")
        assert "secret" not in page.value("JSON.stringify({ ...localStorage })")
        page.value(f"document.getElementById('key').value = '{right}'")
        drop(page, path)
        wait_for_state(page, "talk.wav is transcribed")
        press(page, "listen")
        wait_for_state(page, "Listening")
        press(page, "listen")
        wait_for_state(page, "Ended")


@pytest.mark.slow
def test_a_full_server_is_asked_again(demo_checkpoint: Checkpoint, page: Page) -> None:
    with serving(demo_checkpoint, max_sessions=1) as server:
        slot = server.scheduler.open_slot(lambda _: None)
        page.open(server.http)
        press(page, "listen")
        wait_for_state(page, "all 1 sessions of this server are taken")
        wait_for_state(page, "Trying again")
        slot.release()
        wait_for_state(page, "Listening again")
        press(page, "listen")
        wait_for_state(page, "Ended")


def test_troubles_are_told_apart(server: Loopback, page: Page) -> None:
    page.open(server.http)
    told = page.value(
        "import('/page/server.js').then(({ trouble }) =>"
        " [401, 403, 413, 421, 503, 500].map((one) => trouble(one)))"
    )
    assert len({one["text"] for one in told}) == 6
    assert [one["mayReturn"] for one in told] == [False] * 4 + [True] * 2
    conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.call("Network.enable")
    page.call("Network.emulateNetworkConditions", offline=True, **conditions)
    press(page, "listen")
    wait_for_state(page, "There is no network")
    page.call("Network.emulateNetworkConditions", offline=False, **conditions)
    wait_for_state(page, "Listening")
    press(page, "listen")
    wait_for_state(page, "Ended")


def test_a_file_that_is_dropped_is_transcribed(
    server: Loopback, page: Page, sample: np.ndarray, tmp_path: Path
) -> None:
    path, other = tmp_path / "talk <b>.flac", tmp_path / "no sound.wav"
    soundfile.write(path, sample[: int(6.9 * 16_000)], 16_000)
    other.write_text("nothing")
    page.open(server.http)
    page.value(
        """(() => {
            const sending = document.getElementById('sending');
            wasSeen = false;
            new MutationObserver(() => { wasSeen ||= !sending.hidden; }).observe(
                sending, { attributes: true });
        })()"""
    )
    drop(page, path)
    page.wait("wasSeen")
    wait_for_state(page, "is transcribed")
    page.wait("document.getElementById('sending').hidden")
    assert saved(page, "txt").split() == SAID.split()
    assert page.value(SHOWN).startswith("talk <b>.flac")
    first, *_ = saved(page, "vtt").split("\n")[2:3]
    assert first.startswith("00:00:00.5")
    drop(page, other)
    wait_for_state(page, "no sound.wav: The server refuses: HTTP 400")
    # A second file goes on where the first one ended.
    drop(page, path)
    page.wait(f"{SHOWN}.split('talk <b>.flac').length === 3")
    page.wait("document.getElementById('sending').hidden")
    ends = [
        cue.split(" --> ")[1] for cue in saved(page, "srt").split("\n") if "-->" in cue
    ]
    assert ends == sorted(ends)
    assert ends[-1] > "00:00:12"
    keep_picture(page, "page-file.png", 800, 420)
    press(page, "stage")
    keep_picture(page, "page-full-screen.png", 800, 420)
    assert page.errors[1:] == []  # Chromium's own line about the 400


def test_a_phone_shows_captions_on_most_of_its_screen(
    server: Loopback, page: Page, sample: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "talk.flac"
    soundfile.write(path, sample[: 12 * 16_000], 16_000)
    page.resize(360, 640)
    page.open(server.http)
    drop(page, path)
    wait_for_state(page, "is transcribed")
    height = page.value("document.getElementById('captions').clientHeight")
    assert height >= 0.7 * 640
    assert page.value("document.documentElement.scrollWidth") <= 360
    assert page.value("document.documentElement.scrollHeight") <= 640
    keep_picture(page, "page-phone.png", 360, 640)
    page.value("document.getElementById('more').open = true")
    box = page.value(
        "(({ left, right, top, bottom }) => [left, right, top, bottom])"
        "(document.getElementById('panel').getBoundingClientRect())"
    )
    left, right, top, bottom = box
    assert 0 <= left < right <= 360
    assert 0 <= top < bottom <= 640
    assert page.value("document.documentElement.scrollWidth") <= 360
    # The menu takes nothing from the captions.
    assert page.value("document.getElementById('captions').clientHeight") == height
    for _ in range(200):
        page.press("Tab")
        if page.value("document.activeElement.id") == "clear":
            break
    assert page.value("document.activeElement.id") == "clear"


def test_who_stops_before_it_has_begun_is_not_told_of_errors(
    server: Loopback, page: Page
) -> None:
    page.open(server.http)
    for n_clicks in (2, 8):
        page.value("document.getElementById('state').textContent = ''")
        page.value(
            f"for (let i = 0; i < {n_clicks}; i++)"
            " document.getElementById('listen').click()"
        )
        wait_for_state(page, "Ended")
        page.value("new Promise((resolve) => setTimeout(resolve, 500))")
        assert text_of(page, "state") == "Ended"
        assert text_of(page, "listen") == "Start listening"
    assert page.errors == []


def test_full_screen_is_captions_in_high_contrast(server: Loopback, page: Page) -> None:
    page.open(server.http)
    press(page, "stage")
    colours = page.value(
        "['backgroundColor', 'color'].map((name) => getComputedStyle(document.body)[name])"
    )
    assert colours == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert page.value("document.getElementById('more').offsetParent === null")
    assert page.value("document.getElementById('stage').ariaPressed") == "true"
    assert page.value("document.getElementById('captions').clientHeight") > 500
    page.value("dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape' }))")
    page.wait("!document.body.classList.contains('is-stage')")


@pytest.mark.slow
def test_a_microphone_is_chosen_and_changed_while_it_is_heard(
    server: Loopback, page: Page
) -> None:
    page.open(server.http)
    press(page, "listen")
    wait_for_state(page, "Listening")
    page.wait("document.getElementById('microphone').length >= 3")
    chosen = page.value(
        "(() => { const one = document.getElementById('microphone');"
        " one.selectedIndex = 2; one.dispatchEvent(new Event('change'));"
        " return one.value; })()"
    )
    wait_for_words(page, 4)
    press(page, "listen")
    wait_for_state(page, "Ended")
    page.open(server.http)
    page.wait("document.getElementById('microphone').length >= 3")
    assert page.value("document.getElementById('microphone').value") == chosen


def test_what_the_page_keeps_is_bounded(server: Loopback, page: Page) -> None:
    page.open(server.http)
    n_kept, n_shown, n_chars = page.value(
        """Promise.all(
            ['/page/kept.js', '/page/captions.js'].map((one) => import(one)),
        ).then(([kept, { Captions }]) => {
            const element = document.createElement('div');
            const captions = new Captions(element, {
                keep: kept.keepBlock, drop: kept.dropBlock, change: () => {},
            });
            for (let i = 0; i < 20000; i++) {
                const word = { text: 'x'.repeat(49), lead: ' ' };
                captions.word({ ...word, start_ms: 400 * i, end_ms: 400 * i + 300 });
                if (i % 500 === 0) kept.flush();
            }
            kept.flush();
            const { length } = JSON.stringify({ ...localStorage });
            return [length, element.textContent.length, captions.nChars];
        })"""
    )
    assert 300_000 < n_chars <= 400_000
    assert n_shown <= n_chars
    assert n_kept < 2_300_000
    page.open(server.http)
    page.wait("document.getElementById('captions').childElementCount > 50")
    press(page, "clear")
    assert page.value("Object.keys(localStorage).length") == 0


@pytest.mark.parametrize(
    "kept", ["[]", "{", '{"words": [[1]]}', '{"words": null}', '""']
)
def test_what_was_spoilt_in_the_browser_is_left_out(
    kept: str, server: Loopback, page: Page
) -> None:
    page.open(server.http)
    for key in ("voxmlx.choices", "voxmlx.said.0"):
        page.value(f"localStorage.setItem({key!r}, {kept!r})")
    page.open(server.http)
    page.wait("document.getElementById('model').textContent === 'demo'")
    assert page.value(SHOWN) == ""
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
    page.show_in("light")


# What a person sees: text of the page, and the drafts that styles draw behind it.
SEEN = """[...document.querySelectorAll('#captions p')].map((one) => [...one.children].map(
    (span) => span.textContent + (span.dataset.text ?? '')).join('')).join('\\n')"""


def test_a_draft_is_shown_behind_the_text_unless_it_is_turned_off(
    server: Loopback, page: Page
) -> None:
    page.open(server.http)
    page.value(
        f"""(() => {{
            seen = [];
            drafts = [];
            new MutationObserver(() => {{
                seen.push({SEEN});
                drafts.push(document.querySelector('.draft[data-text]:not([data-text=""])')
                    ?.dataset.text);
            }}).observe(document.getElementById('captions'),
                {{ subtree: true, childList: true, attributes: true }});
        }})()"""
    )
    press(page, "listen")
    wait_for_words(page, 8)
    press(page, "listen")
    wait_for_state(page, "Ended")
    drafts = [one for one in page.value("drafts") if one]
    assert len({*drafts}) >= 6
    # No word is there twice, not even for a moment, nor goes once it was confirmed.
    n_words = [len(one.split()) for one in page.value("seen")]
    assert max(n_words) <= len(page.value(SHOWN).split()) + 1
    assert (
        page.value("document.querySelector('.draft[data-text]:not([data-text=\"\"])')")
        is None
    )
    assert page.value("document.getElementById('draft').checked")
    press(page, "draft")
    page.value("drafts = []")
    press(page, "listen")
    wait_for_words(page, len(page.value(SHOWN).split()) + 4)
    assert not any(page.value("drafts"))
    page.open(server.http)
    assert not page.value("document.getElementById('draft').checked")
    assert page.errors == []


def test_a_word_that_is_confirmed_does_not_flicker_and_one_that_changes_is_redrawn(
    server: Loopback, page: Page
) -> None:
    page.open(server.http)
    steps = [
        *(("draft", " turn"), ("draft", " turn on"), ("delta", " turn")),
        *(("draft", " on"), ("delta", " on"), ("draft", " the heat")),
        *(("draft", " the heating"), ("draft", " a"), ("delta", " the")),
        *(("draft", ""), ("draft", " end"), ("end", ""), ("draft", " next")),
        *(("draft", ""), ("draft", " last"), ("withdraw", "")),
    ]
    seen, n_spans, style = page.value(
        f"""import('/page/captions.js').then(({{ Captions }}) => {{
            const element = document.getElementById('captions');
            const nothing = () => {{}};
            const captions = new Captions(element,
                {{ keep: nothing, drop: nothing, change: nothing }});
            const seen = [];
            let style = null;
            for (const [what, text] of {json.dumps(steps)}) {{
                captions[what](text);
                seen.push({SEEN});
                const drawn = element.querySelector('.draft');
                style ??= (({{ content, opacity }}) => [content, opacity])(
                    getComputedStyle(drawn, '::after'));
            }}
            return [seen, element.querySelectorAll('span').length, style];
        }})"""
    )
    assert seen[:4] == ["turn", "turn on", "turn on", "turn on"]
    assert seen[4:8] == [
        "turn on",
        "turn on the heat",
        "turn on the heating",
        "turn on a",
    ]
    # The text that stays and a draft that is about to be replaced.
    assert seen[8:11] == ["turn on the a", "turn on the", "turn on the end"]
    assert seen[11:] == [
        "turn on the",
        "turn on the\nnext",
        "turn on the",
        "turn on the\nlast",
        "turn on the",
    ]
    assert n_spans == 3
    assert style == ['"turn"', "0.7"]
