"""The overlay in a browser: only letters are opaque, and its address says its look."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import av
import numpy as np
import pytest

from tests.markdown import ROOT
from tests.serve.browser import Page, browsing
from voxmlx.overlay.caption_server import CaptionServer
from voxmlx.web.access import Access
from voxmlx.web.listening import listen

# Where to keep the picture for the guide: VOXMLX_SCREENSHOTS=docs.
SCREENSHOTS = os.environ.get("VOXMLX_SCREENSHOTS")

HOST = "127.0.0.1"
SAID = "turn on the heating what time is it turn on the lights"
SHOWN = "document.getElementById('shown').textContent"
LOOK = ROOT / "voxmlx" / "overlay" / "page" / "look.js"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(None, tmp_path_factory.mktemp("browser")) as page:
        clear = {"r": 0, "g": 0, "b": 0, "a": 0}
        page.call("Emulation.setDefaultBackgroundColorOverride", color=clear)
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    browser.resize(640, 200)
    browser.errors.clear()
    yield browser
    assert browser.errors == []
    browser.open("about:blank")


@pytest.fixture
def server() -> Iterator[CaptionServer]:
    server = CaptionServer(listen(HOST, 0), Access.for_host(HOST, (), ()))
    yield server
    server.close()


def opened(page: Page, server: CaptionServer, look: str = "") -> None:
    page.open(f"{server.url}/{look}")
    page.wait(f"{SHOWN} !== ''")


def pixels(page: Page, path: Path) -> np.ndarray:
    """A screenshot as [height, width, red green blue alpha]."""
    page.value("new Promise((drawn) => requestAnimationFrame(() => drawn()))")
    page.screenshot(path)
    with av.open(str(path)) as picture:
        return next(picture.decode(video=0)).to_ndarray(format="rgba")


def style(page: Page, name: str, of: str = "captions") -> str:
    element = f"document.getElementById('{of}')"
    return page.value(f"getComputedStyle({element}).{name}")


def test_all_but_the_letters_is_transparent(
    page: Page, server: CaptionServer, tmp_path: Path
) -> None:
    server.set(SAID, " the time is")
    opened(page, server)
    image = pixels(page, tmp_path / "overlay.png")
    alpha = image[..., 3]
    box = page.value(
        "(({ left, top, right, bottom }) => [left, top, right, bottom])"
        "(document.getElementById('captions').getBoundingClientRect())"
    )
    left, top, right, bottom = (round(edge) for edge in box)
    beside = np.ones_like(alpha, bool)
    beside[top:bottom, left:right] = False
    assert not alpha[beside].any()
    inside = alpha[top:bottom, left:right]
    # Letters and their outline are opaque, and what is between them is not there.
    assert 0.02 < (inside == 255).mean() < 0.6
    assert (inside == 0).mean() > 0.3
    white = (image[..., :3] > 250).all(axis=-1) & (alpha == 255)
    assert white.any()
    if SCREENSHOTS is not None:
        page.screenshot(Path(SCREENSHOTS) / "overlay.png")


def test_the_last_lines_are_shown_whole_and_what_is_above_is_hidden(
    page: Page, server: CaptionServer
) -> None:
    server.set("\n".join(f"this is paragraph {i}" for i in range(9)), "")
    opened(page, server, "?lines=3&size=30")
    visible = page.value(
        """(() => {
            const box = document.getElementById('captions').getBoundingClientRect();
            const node = document.getElementById('said').firstChild;
            return node.data.split('\\n').filter((line) => {
                const range = document.createRange();
                const start = node.data.indexOf(line);
                range.setStart(node, start);
                range.setEnd(node, start + line.length);
                const { top, bottom } = range.getBoundingClientRect();
                return top >= box.top - 1 && bottom <= box.bottom + 1;
            });
        })()"""
    )
    assert visible == [f"this is paragraph {i}" for i in (6, 7, 8)]
    assert page.value("document.documentElement.scrollHeight <= innerHeight")


def test_the_address_says_how_the_captions_look(
    page: Page, server: CaptionServer
) -> None:
    server.set("turn on", " the heating")
    look = (
        "?size=40&color=ffcc00&background=00000080&font=Courier%20New&align=center"
        "&weight=400&outline=0&shadow=9&draft=off&margin=10&position=top&page=blue"
    )
    opened(page, server, look)
    assert style(page, "fontSize") == "40px"
    assert style(page, "color") == "rgb(255, 204, 0)"
    assert style(page, "fontFamily").startswith('"Courier New"')
    assert style(page, "fontWeight") == "400"
    assert style(page, "textAlign") == "center"
    assert style(page, "textShadow") == "rgb(0, 0, 0) 0px 3px 9px"
    assert style(page, "backgroundColor", "shown") == "rgba(0, 0, 0, 0.5)"
    assert style(page, "display", "draft") == "none"
    assert page.value("document.getElementById('captions').offsetTop") == 10
    blue = "getComputedStyle(document.documentElement).backgroundColor"
    assert page.value(blue) == "rgb(0, 0, 255)"


def test_wrong_parameters_are_left_out_and_named(
    page: Page, server: CaptionServer
) -> None:
    server.set("turn on", "")
    opened(page, server)
    names = ("fontSize", "color", "fontFamily", "textAlign", "textShadow", "maxHeight")
    usual = [style(page, name) for name in names]
    bad = {
        "size": ["0", "9999", "1e2", "-8", "12px", ""],
        "color": ["url(x)", "red;background:blue", "zz", "#"],
        "lines": ["0", "21", "two"],
        "font": ['a"b', "x;y", "a{b", ""],
        "align": ["middle", "LEFT"],
        "outline": ["21", "-1"],
        "<b>": ["1"],
    }
    look = urlencode([(name, one) for name, ones in bad.items() for one in ones])
    opened(page, server, f"?{look}")
    assert [style(page, name) for name in names] == usual
    told = page.value(
        "import('/page/look.js').then(({ readLook }) => readLook(location.search).wrong)"
    )
    assert len(told) == sum(map(len, bad.values()))
    assert all(sentence.endswith("see /help") for sentence in told)


def test_words_are_text_and_never_html(page: Page, server: CaptionServer) -> None:
    said = "<img src=x onerror=alert(1)> &amp; </p><script>document.title='x'</script>"
    server.set(said, " <b>bold</b>")
    opened(page, server)
    assert page.value(SHOWN) == f"{said} <b>bold</b>"
    inside = "document.getElementById('captions').querySelectorAll('img, script, b')"
    assert page.value(f"{inside}.length") == 0
    assert page.value("document.title") == "Captions"


def test_words_that_are_confirmed_are_added_to_and_the_draft_is_replaced(
    page: Page, server: CaptionServer
) -> None:
    server.set("turn on", " the heat")
    opened(page, server)
    page.value("document.getElementById('said').firstChild.isSame = true")
    server.set("turn on the", " heating")
    page.wait(f"{SHOWN} === 'turn on the heating'")
    assert page.value("document.getElementById('said').firstChild.isSame") is True
    assert style(page, "opacity", "draft") == "0.6"


def test_a_page_comes_back_by_itself_with_the_current_lines(page: Page) -> None:
    access = Access.for_host(HOST, (), ())
    first = CaptionServer(listen(HOST, 0), access)
    port = int(first.url.rpartition(":")[2])
    first.set("before", "")
    opened(page, first, "?hide=0")
    first.close()
    page.wait(f"{SHOWN} === ''")  # what was said is no caption any more
    second = CaptionServer(listen(HOST, port), access)
    try:
        second.set("after", "")
        page.wait(f"{SHOWN} === 'after'")
    finally:
        second.close()
    page.errors.clear()  # Chromium's own lines about the time between


def test_captions_go_after_a_silence_if_that_is_asked_for(
    page: Page, server: CaptionServer
) -> None:
    # All that is seen is kept: a look that is late would miss the second before quiet.
    page.open(f"{server.url}/?hide=1")
    quiet = "document.getElementById('captions').classList.contains('is-quiet')"
    page.value(
        f"""(() => {{
            seen = [];
            new MutationObserver(() => seen.push([{SHOWN}, {quiet}])).observe(
                document.getElementById('captions'),
                {{ subtree: true, childList: true, characterData: true, attributes: true }},
            );
        }})()"""
    )
    for text in ("turn on", "turn on the lights"):
        server.set(text, "")
        same = (
            f"seen.filter(([text]) => text === '{text}').map(([_, isQuiet]) => isQuiet)"
        )
        page.wait(f"{same}.includes(true)")
        assert page.value(same) == [False, True]


def test_the_help_and_the_guide_name_every_parameter(
    page: Page, server: CaptionServer
) -> None:
    names = re.findall(r'\bname: "([\w-]+)"', LOOK.read_text("utf-8"))
    assert len(names) > 10
    page.open(f"{server.url}/help")
    page.wait("document.querySelectorAll('tbody tr').length > 0")
    rows = "[...document.querySelectorAll('tbody tr')]"
    assert page.value(f"{rows}.map((row) => row.cells[0].textContent)") == names
    guide = (ROOT / "docs" / "live.md").read_text("utf-8")
    section = guide.split("### The look of the page")[1].split("\n#")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE) == names
