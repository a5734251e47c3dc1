"""The pages of the gallery, rendered by the installed se-nas from the saved reports in docs/gallery.

A file is a report, a folder of files a comparison of reports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from se_nas.report import ParetoReport, compare, write_comparison, write_html

SUFFIX = ".json"


def sources(folder: Path) -> dict[str, Path]:
    """Saved reports and folders of them by the name of their page."""
    return {
        f"{path.stem}.html": path
        for path in sorted(folder.iterdir())
        if path.is_dir() or path.suffix == SUFFIX
    }


def render(source: Path, page: Path) -> Path:
    """Write the page of a report, or of a comparison; returns its path."""
    if source.is_dir():
        reports = [ParetoReport.load(path) for path in sorted(source.glob(f"*{SUFFIX}"))]
        return write_comparison(compare(reports), page)
    return write_html(ParetoReport.load(source), page)


def render_gallery(app: Any, failed: Exception | None) -> None:
    """Reports are whole pages of their own, which Sphinx does not touch."""
    if failed is not None or app.builder.format != "html":
        return
    out = Path(app.outdir) / "gallery"
    out.mkdir(exist_ok=True)
    for name, source in sources(Path(app.srcdir) / "gallery").items():
        render(source, out / name)


def setup(app: Any) -> dict[str, bool]:
    app.connect("build-finished", render_gallery)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
