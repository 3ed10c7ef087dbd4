"""Hooks of the site's build. Files outside docs/ become pages: cards, changelog, contributing."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "cards/speech-16k.md": "codecs/speech-16k/README.md",
    "cards/speech-16k-generator.md": "codecs/speech-16k/generator/README.md",
    "cards/speech-16k-code.md": "codecs/speech-16k-code/README.md",
    "cards/speech-16k-live.md": "codecs/speech-16k-live/README.md",
    "cards/speech-16k-continuous.md": "codecs/speech-16k-continuous/README.md",
    "cards/speech-16k-vbr.md": "codecs/speech-16k-vbr/README.md",
    "cards/allison.md": "recipes/data/allison/README.md",
}


def on_startup(**kwargs: Any) -> None:
    """Let the notebooks' threads sleep while they wait, which is faster beside other work."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for page, source in PAGES.items():
        link = functools.partial(_link, page=page, source=source)
        text = re.sub(r"\]\((?!\w+:)([^)#]+)", link, (ROOT / source).read_text())
        files.append(File.generated(config, page, content=text))
    return files


def _link(found: re.Match[str], page: str, source: str) -> str:
    """Write a link between files of the repository as one between pages of the site."""
    target = os.path.normpath(Path(source).parent / found[1])
    pages = {source: page for page, source in PAGES.items()}
    leads_to = pages.get(target) or target.removeprefix("docs/")
    return f"]({os.path.relpath(leads_to, Path(page).parent)}"
