"""Adds pages that live elsewhere in the repository to the site that mkdocs builds.

Links between files of the repository work on GitHub. This hook gives the same files a
place in the site, and rewrites the links to them.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

# A file of the repository -> its place in the site.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "voxmlx/model/MODEL.md": "model.md",
    "voxmlx/demo/MODEL_CARD.md": "demo.md",
    **{
        path.relative_to(ROOT).as_posix(): f"results/{path.name}"
        for path in sorted(ROOT.glob("benchmarks/results/*"))
        if path.is_file()
    },
}

_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file of PAGES to the site."""
    for source, place in PAGES.items():
        path = ROOT / source
        is_text = path.suffix == ".md"
        content = path.read_text(encoding="utf-8") if is_text else path.read_bytes()
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(
    markdown: str, *, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Turn links between files of the repository into links between pages."""
    place = page.file.src_uri
    places = {place: source for source, place in PAGES.items()}
    source = places.get(place, f"docs/{place}")

    def relinked(link: re.Match[str]) -> str:
        target = posixpath.normpath(
            posixpath.join(posixpath.dirname(source), link.group(1))
        )
        to = PAGES.get(target, target.removeprefix("docs/"))
        if to.startswith("..") or files.get_file_from_path(to) is None:
            to_repository = f"{config.repo_url}/blob/main/{target}"
            return f"]({to_repository}" if (ROOT / target).exists() else link.group()
        return f"]({posixpath.relpath(to, posixpath.dirname(place) or '.')}"

    return _LINK.sub(relinked, markdown)
