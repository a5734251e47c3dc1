"""Links of the pages to files outside of docs/, and the reports of the gallery, which Sphinx does not know."""

from __future__ import annotations

import shutil
from pathlib import Path
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


def copy_gallery(app: Any, failed: Exception | None) -> None:
    """Reports are whole pages of their own, so they are copied as they are."""
    if failed is None and app.builder.format == "html":
        shutil.copytree(Path(app.srcdir) / "gallery", Path(app.outdir) / "gallery", dirs_exist_ok=True)


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", link_pages)
    app.connect("build-finished", copy_gallery)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
