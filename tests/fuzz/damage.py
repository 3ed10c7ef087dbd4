"""Damage to files, drawn from a seeded generator."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

DEEP = 20_000  # levels of nesting
ODD_TEXT = (
    "x" * 5000,
    "../../../../etc/passwd",
    "/dev/zero",
    "a\0b",
    "\x1b[2J\x1b]0;title\x07",
    "‮evil\nname",
    "",
    "NaN",
    "train/../../x",
    "é" * 300,
)
ODD_NUMBERS = (0, -1, 1, 7, 65_536, 2**31, 10**9, 2**63, 10**400, -1e308, 1e308, 0.5)
ODD_VALUES = (None, True, [], {}, [[]], {"a": {"b": []}}, [1, "2"], *ODD_TEXT, *ODD_NUMBERS)
ODD_BYTES = (b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x80")


def damage(name: str, data: bytes, random: Random) -> bytes:
    """Return the content of a file after damage that suits the suffix of its name."""
    suffix = name.rpartition(".")[2].lower()
    smart = {
        "json": damage_json,
        "jsonl": damage_jsonl,
        "csv": damage_csv,
        "safetensors": damage_safetensors,
        "parquet": damage_parquet,
    }.get(suffix)
    if smart is None or random.random() < 0.35:
        return damage_bytes(data, random)
    return smart(data, random)


def damage_bytes(data: bytes, random: Random) -> bytes:
    """Flip, overwrite, cut out, repeat, insert or truncate, once to four times."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        if not out:
            break
        near_start = random.random() < 0.5
        at = random.randrange(min(len(out), 256) if near_start else len(out))
        size = min(random.choice((1, 4, 64, 1024, 16_384)), len(out) - at)
        kind = random.randrange(7)
        if kind == 0:
            out[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            out[at : at + size] = random.randbytes(size)
        elif kind == 2:
            del out[at : at + size]
        elif kind == 3:
            out[at:at] = out[at : at + size]
        elif kind == 4:
            odd = random.choice(ODD_BYTES)
            out[at : at + len(odd)] = odd
        elif kind == 5:
            out[at : at + size] = bytes(size)
        else:
            del out[at:]
    return bytes(out)


def damage_value(value: Any, random: Random) -> Any:
    """Replace, delete or add one value somewhere in a JSON value."""
    if isinstance(value, dict | list) and value and random.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = random.choice(keys)
        changed: Any = dict(value) if isinstance(value, dict) else list(value)
        kind = random.random()
        if kind < 0.1:
            del changed[key]
        elif kind < 0.2 and isinstance(changed, list):
            changed += [value[key]] * random.choice((1, 1000))
        elif kind < 0.2:
            changed[random.choice(("__class__", "auto_map", "x" * 300, "\x1b[31m"))] = value[key]
        else:
            changed[key] = damage_value(value[key], random)
        return changed
    if isinstance(value, int | float) and random.random() < 0.6:
        return random.choice((value + 1, value - 1, -value, value * 1000, *ODD_NUMBERS))
    return random.choice(ODD_VALUES)


def damage_json(data: bytes, random: Random) -> bytes:
    if random.random() < 0.05:
        return random.choice((b"[", b'{"a":')) * DEEP
    value = json.loads(data)
    for _ in range(random.choice((1, 1, 1, 3))):
        value = damage_value(value, random)
    return json.dumps(value).encode()


def damage_jsonl(data: bytes, random: Random) -> bytes:
    lines = data.splitlines() or [b"{}"]
    at = random.randrange(len(lines))
    kind = random.randrange(4)
    if kind == 0:
        lines[at] = damage_json(lines[at], random)
    elif kind == 1:
        lines.insert(at, lines[at])
    elif kind == 2:
        lines.insert(at, random.choice((b"", b"null", b"not json", b"\xff\xfe", b"[" * DEEP)))
    else:
        lines[at] = damage_bytes(lines[at], random)
    return b"\n".join(lines) + b"\n"


def damage_csv(data: bytes, random: Random) -> bytes:
    rows = [line.split(b",") for line in data.splitlines() or [b"a"]]
    row = random.choice(rows)
    at = random.randrange(len(row))
    kind = random.randrange(6)
    if kind == 0:
        row[at] = random.choice(ODD_TEXT).encode()
    elif kind == 1:
        row[at] = random.choice((b"\xff\xfe", b'"', b"\0", b"\xef\xbb\xbf", b"y" * 300_000))
    elif kind == 2:
        del row[at]
    elif kind == 3:
        row.insert(at, row[at])
    elif kind == 4:
        rows.insert(random.randrange(len(rows) + 1), list(row))
    else:
        rows.remove(row)
    return b"\n".join(b",".join(row) for row in rows) + b"\n"


def damage_safetensors(data: bytes, random: Random) -> bytes:
    """Change the length of the header, or a value in it."""
    (size,) = struct.unpack_from("<Q", data)
    if random.random() < 0.15:
        size = random.choice((0, 1, size - 1, size + 1, 10**8, 2**63, 2**64 - 1))
        return struct.pack("<Q", size) + data[8:]
    header = damage_json(data[8 : 8 + size], random)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def damage_parquet(data: bytes, random: Random) -> bytes:
    """Replace a column by odd values, drop or repeat it, or change the schema's metadata."""
    table = pq.read_table(io.BytesIO(data))
    at = random.randrange(table.num_columns)
    name = table.column_names[at]
    kind = random.randrange(5)
    if kind == 0:
        table = table.drop_columns([name])
    elif kind == 1:
        table = table.set_column(at, name, _odd_column(table.num_rows, random))
    elif kind == 2:
        table = _change_values(table, at, random)
    elif kind == 3:
        metadata = dict(table.schema.metadata or {b"x": b"{}"})
        key = random.choice(list(metadata))
        metadata[key] = damage(random.choice(("a", "a.json")), metadata[key] or b"{}", random)
        table = table.replace_schema_metadata(metadata)
    else:
        rows = [random.randrange(table.num_rows) for _ in range(random.choice((0, 1, 40)))]
        table = table.take(pa.array(rows, pa.int64()))
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _odd_column(n: int, random: Random) -> pa.Array:
    makers: tuple[Callable[[], pa.Array], ...] = (
        lambda: pa.nulls(n),
        lambda: pa.array([random.choice(ODD_TEXT) for _ in range(n)]),
        lambda: pa.array([random.choice((0, -1, 2**40, 2**62)) for _ in range(n)]),
        lambda: pa.array([random.choice((0.5, float("nan"), 1e308)) for _ in range(n)]),
        lambda: pa.array([random.randbytes(9) for _ in range(n)]),
        lambda: pa.array([[1, None, 3]] * n),
        lambda: pa.array([{"bytes": None, "path": random.choice(ODD_TEXT)} for _ in range(n)]),
        lambda: pa.array([{"bytes": b"RIFF", "path": 7} for _ in range(n)]),
        lambda: pa.array([b"\xff\xfe\xfa"] * n).view(pa.string()),
    )
    return random.choice(makers)()


def _change_values(table: pa.Table, at: int, random: Random) -> pa.Table:
    """Change one value of a column and keep its type, if the new value fits into the type."""
    field = table.schema.field(at)
    values = table.column(at).to_pylist()
    row = random.randrange(len(values)) if values else None
    if row is None:
        return table
    value = values[row]
    if isinstance(value, bytes):
        values[row] = damage_bytes(value, random)
    elif isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        values[row] = value | {"bytes": damage_bytes(value["bytes"], random)}
    else:
        values[row] = damage_value(value, random)
    try:
        column = pa.array(values, field.type)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        column = pa.array([None] * len(values), field.type)
    return table.set_column(at, field, column)
