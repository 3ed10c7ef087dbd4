"""CRC-32C (Castagnoli), the checksum of .tgc files."""

from __future__ import annotations

__all__ = ["crc32c"]


def _table() -> list[int]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        found.append(byte)
    return found


_TABLE = _table()


def crc32c(data: bytes, before: int = 0) -> int:
    """Return the CRC-32C of bytes; `before` is that of the bytes before them."""
    crc, table = before ^ 0xFFFFFFFF, _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF
