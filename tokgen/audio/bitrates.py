"""Bitrates of lossy formats, without importing a codec library."""

from __future__ import annotations

__all__ = ["LOSSY_KBPS", "check_kbps"]

LOSSY_KBPS = {"mp3": (8, 320), "opus": (6, 256)}  # lowest and highest bitrate for mono


def check_kbps(kind: str, kbps: float) -> None:
    """Raise ValueError if a format of `LOSSY_KBPS` does not have a bitrate."""
    least, most = LOSSY_KBPS[kind]
    if not least <= kbps <= most:
        raise ValueError(
            f"{kind}:{kbps:g}: mono {kind} has {least} to {most} kbps; choose a bitrate in that "
            "range"
        )
