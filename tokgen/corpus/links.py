"""Links that lead out of a folder, and files that cannot be read as files.

A folder from elsewhere can hold links to any file of this machine. They are refused by name unless
`follow_links` is set.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from tokgen.audio.files import display_name
from tokgen.corpus.entries import Rejection

__all__ = ["FIX", "is_inside", "roots_of", "walk", "why_unreadable"]

FIX = "set follow_links if you trust it"
_KINDS = (
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISDIR, "folder"),
)


def roots_of(folder: Path) -> list[Path]:
    """Return the real folders below which a folder's files may lie.

    In a snapshot of the Hugging Face hub's cache, files are links to the blobs beside it.
    """
    real = Path(os.path.realpath(folder))
    if real.parent.name == "snapshots":
        return [real, real.parent.parent / "blobs"]
    return [real]


def is_inside(path: Path, roots: Sequence[Path]) -> bool:
    """Return whether a path leads below one of the real folders, all links followed."""
    real = os.path.realpath(path)
    return any(real == str(root) or real.startswith(f"{root}{os.sep}") for root in roots)


def why_unreadable(path: Path) -> str | None:
    """Return why a path cannot be read as a file; None for a regular file."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "link to a file that does not exist" if os.path.islink(path) else "no such file"
    except ValueError:
        return "no such file"
    except OSError as error:
        circle = "link that leads to itself"
        return circle if error.errno == errno.ELOOP else error.strerror or str(error)
    if stat.S_ISREG(mode):
        return None
    kind = next((name for fits, name in _KINDS if fits(mode)), "other")
    return f"not a regular file ({kind})"


def walk(folder: Path, left_out: list[Rejection], *, follow_links: bool) -> list[Path]:
    """Find the regular files below a folder in a stable order, without hidden ones.

    Links to files of the folder are kept. Links to its own subfolders are not entered, because
    their files are found anyway.

    Args:
        left_out: receives what cannot be read or leads out of the folder.
        follow_links: keep and enter links that lead out of the folder. No folder is entered twice.
    """

    def leave_out(path: Path, reason: str) -> None:
        left_out.append(Rejection(display_name(path), reason))

    def wants_folder(path: Path) -> bool:
        real = os.path.realpath(path)
        if os.path.islink(path):
            if is_inside(path, roots) and not _is_hidden(real, roots):
                return False
            if not follow_links:
                leave_out(path, f"link to a folder elsewhere ({display_name(real)}): {FIX}")
                return False
            if real in entered:
                leave_out(path, "link to a folder that another path leads to")
        if real in entered:
            return False
        entered.add(real)
        return True

    def wants_file(path: Path) -> bool:
        reason = why_unreadable(path)
        if reason is None and not (
            follow_links or not os.path.islink(path) or is_inside(path, roots)
        ):
            reason = f"link to a file elsewhere ({display_name(os.path.realpath(path))}): {FIX}"
        if reason is not None:
            leave_out(path, reason)
        return reason is None

    roots = roots_of(folder)
    entered = {str(roots[0])}
    found: list[Path] = []
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        try:
            names = sorted(name for name in os.listdir(parent) if not name.startswith("."))
        except OSError as error:
            leave_out(parent, f"folder that cannot be read ({error.strerror or error})")
            continue
        inner = []
        for path in (parent / name for name in names):
            if os.path.isdir(path):
                inner += [path] if wants_folder(path) else []
            else:
                found += [path] if wants_file(path) else []
        waiting += reversed(inner)
    return found


def _is_hidden(real: str, roots: Sequence[Path]) -> bool:
    inside = os.path.relpath(real, roots[0]).split(os.sep)
    return inside != ["."] and any(part.startswith(".") for part in inside)
