"""Links of the pages to files outside of docs/."""

from __future__ import annotations

from typing import Any

PAGES = {
    "../README.md": "index.md",
    "../CONTRIBUTING.md": "project/contributing.md",
    "../SECURITY.md": "project/security.md",
    "../CHANGELOG.md": "project/changes.md",
}
"""Files of the repository's root that have a page on the site."""


def link_pages(app: Any, page: str, source: list[str]) -> None:
    """Point links at the page of the site where GitHub's readers get the file."""
    for file, target in PAGES.items():
        source[0] = source[0].replace(f"]({file}", f"]({target}")


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", link_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
