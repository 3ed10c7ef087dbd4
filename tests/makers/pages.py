"""Report pages of run folders, and what they hold."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path

from tokgen.report.page import write_report


def page_of(*folders: Path, **options) -> str:
    """Write the page of run folders and return its HTML."""
    out = folders[0].parent / "report.html"
    write_report(folders, out, progress=False, **options)
    return out.read_text("utf-8")


def text_of(page: str) -> str:
    """The text of a page without scripts and styles."""
    page = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def data_of(page: str) -> dict:
    """The JSON data for the scripts of a page."""
    found = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page)
    return json.loads(found[1])


def sounds_of(page: str) -> dict[str, bytes]:
    """The embedded audio files of a page, by element id."""
    found = re.findall(r'<script type="application/octet-stream" id="(.*?)">(.*?)</script>', page)
    return {name: base64.b64decode(audio) for name, audio in found}
