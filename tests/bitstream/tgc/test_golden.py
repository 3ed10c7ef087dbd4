"""Files written by older versions decode to the same codes, and are written the same again."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from tokgen.bitstream.tgc.container import Block, Ended, TgcWriter, read_events
from tokgen.bitstream.tgc.entropy import AdaptiveCounts, EntropyModel, StaticCounts
from tokgen.bitstream.tgc.layout import Header, short_hash

FOLDER = Path(__file__).parent / "golden"
LEVEL, FRAME = np.mgrid[:4, :30]
CODES = np.where(FRAME % 3 == 2, 7, (7 * LEVEL + FRAME * FRAME) % 60)
DEPTH = FRAME[0] // 4 % 4 + 1
MODELS: dict[str, EntropyModel | None] = {
    "packed": None,
    "static": StaticCounts(np.arange(1, 241).reshape(4, 60)),
    "adaptive": AdaptiveCounts(4, 60),
}


KINDS = [*MODELS, *(f"{mode}_depth" for mode in MODELS)]


def written(kind: str) -> bytes:
    mode, _, depth = kind.partition("_")
    model, file = MODELS[mode], io.BytesIO()
    name = "" if model is None else short_hash(model.model_hash)
    side = {"lead": np.full(1, 7, np.float32)}
    periods = {"depth": 1} if depth else {}
    header = Header("tiny", "0f" * 8, mode, name, 16_000, 320, 1, 4, 60, 25, 9_500, side, periods)
    writer = TgcWriter(file, header, model)
    writer.write(CODES, {"depth": DEPTH.astype(np.float32)})
    writer.close(9_500)
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_old_files_decode_to_the_same_codes(kind: str) -> None:
    mode, _, depth = kind.partition("_")
    with (FOLDER / f"{kind}.tgc").open("rb") as file:
        header, *blocks, ended = read_events(file, lambda header: MODELS[header.mode])
    assert isinstance(header, Header) and (header.codec, header.mode) == ("tiny", mode)
    assert header.side["lead"].tolist() == [7] and ended == Ended(30, 9_500)
    codes = [b.codes for b in blocks if isinstance(b, Block)]
    wanted = np.where(LEVEL < DEPTH, CODES, 0) if depth else CODES
    assert len(codes) == 2 and (np.concatenate(codes, axis=1) == wanted).all()
    if depth:
        found = [b.side["depth"] for b in blocks if isinstance(b, Block)]
        assert (np.concatenate(found) == DEPTH).all()


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_written_as_before(kind: str) -> None:
    assert written(kind) == (FOLDER / f"{kind}.tgc").read_bytes()
