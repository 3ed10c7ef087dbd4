"""Names of codecs: parse them and explain wrong ones, without importing torch.

A codec is named by its name in a zoo, by a folder, or by a hub id. A suffix such as ":6" selects
6 kbps of a codec that has several bitrates. "mp3:24" and "opus:12" are waveform codecs.
"""

from __future__ import annotations

import re
from pathlib import Path

from tokgen.audio.bitrates import LOSSY_KBPS, check_kbps
from tokgen.nn.hub import CONFIG
from tokgen.runs.checks import closest
from tokgen.zoo.folders import zoo_folders

__all__ = [
    "check_name",
    "find_in_zoo",
    "is_hub_id",
    "split_kbps",
    "unknown_codec",
    "waveform_kind",
    "zoo_names",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WITH_KBPS = re.compile(r"(.+):([0-9]+(?:\.[0-9]+)?)")


def check_name(name: str | Path, *, waveform: bool = False) -> None:
    """Check a codec's name without loading the codec. A hub id is not looked up.

    Args:
        name: as for `load_codec`.
        waveform: allow waveform codecs, as `load_roundtrip` does.
    Raises:
        FileNotFoundError: no codec of this name; the message lists the known names.
        ValueError: a waveform codec without `waveform`, or one without a bitrate that it has.
    """
    if kind := waveform_kind(name):
        if not waveform:
            raise ValueError(
                f"{name} has no codes, only audio: measure it with `tokgen score` or `tokgen "
                "drift`, or name a codec with codes"
            )
        plain, kbps = split_kbps(name)
        if kbps is None or plain != kind:
            raise ValueError(f"{name}: add a bitrate in kbps, such as {kind}:24")
        check_kbps(kind, kbps)
        return
    plain = split_kbps(name)[0]
    if isinstance(plain, str) and find_in_zoo(plain) is not None:
        return
    if not Path(plain).is_dir() and not is_hub_id(plain):
        raise unknown_codec(name)


def find_in_zoo(name: str) -> Path | None:
    """Return the folder of a zoo codec, or None for any other name, such as a path.

    The name may have a bitrate suffix.
    """
    name = str(split_kbps(name)[0])
    if not _NAME.fullmatch(name):
        return None
    for zoo in zoo_folders():
        if (zoo / name / CONFIG).is_file():
            return zoo / name
    return None


def zoo_names() -> list[str]:
    """Return the sorted names of the folders in all zoos that hold a codec."""
    names = {folder.name for zoo in zoo_folders() for folder in zoo.iterdir()}
    return sorted(name for name in names if find_in_zoo(name) is not None)


def is_hub_id(name: str | Path) -> bool:
    """Return whether a name has the form of a hub id, "owner/name"."""
    return _HUB_ID.fullmatch(str(name)) is not None


def waveform_kind(name: str | Path) -> str | None:
    """Return "mp3" or "opus" if the name is a waveform codec's and not a folder's."""
    kind = str(name).partition(":")[0]
    return kind if kind in LOSSY_KBPS and not Path(name).is_dir() else None


def split_kbps(name: str | Path) -> tuple[str | Path, float | None]:
    """Split a name into name and kbps; a folder whose name has a suffix is not split."""
    found = _WITH_KBPS.fullmatch(str(name))
    if found is None or Path(name).is_dir():
        return name, None
    return found[1], float(found[2])


def unknown_codec(name: str | Path, reason: str = "") -> FileNotFoundError:
    """Return the error for a name that is no codec's, with the known names."""
    names = zoo_names()
    formats = [f"{kind}:KBPS" for kind in LOSSY_KBPS]
    known = f"{', '.join(names) or 'none'} (and for scores and drift, {' and '.join(formats)})"
    if reason:
        return FileNotFoundError(f"no codec {str(name)!r}: {reason}; known: {known}")
    plain = str(split_kbps(name)[0])
    return FileNotFoundError(
        f"no codec {plain!r}{closest(plain, [*names, *LOSSY_KBPS])}; known: {known}; or pass a "
        "folder or a hub id"
    )
