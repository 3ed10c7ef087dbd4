"""The grid of frames: found after a cut, refused in other audio, and kept by encode and decode."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from makers.audio import RATE, codec_tone, cut, make_tone
from makers.codecs import MAKERS, BlockCodec
from tokgen.codec.aligned import LEAD
from tokgen.codec.grid import MIN_FRAMES, find_grid
from tokgen.codec.grid_segments import find_grids
from tokgen.codec.long_audio import decode_blocks, encode_blocks
from tokgen.codec.stable.transports import round_to_16_bits
from tokgen.corpus.listed import open_corpus
from tokgen.zoo.stft import StftCodec

HOP = 320


def decoded(codec: StftCodec, seed: int, seconds: float = 2.0) -> Tensor:
    """Decode the codes of a voice-like sound; [1, 1, N]."""
    tone = make_tone(seconds, seed)[None]
    return codec.decode(codec.encode(tone), tone.shape[-1])


def near(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("start", [0, 117, *random.Random(0).sample(range(1, 16000), 4)])
def test_a_cut_is_found(tiny_codec: StftCodec, start: int) -> None:
    audio = decoded(tiny_codec, seed=start)[0, :, start:]
    found = find_grid(audio, tiny_codec)
    assert found.found and found.offset == -start % HOP and found.score > 12
    assert find_grid(audio[0], tiny_codec) == found  # no chance is involved
    carried = find_grid(round_to_16_bits(audio / 2), tiny_codec)
    assert carried.found and carried.offset == -start % HOP


def test_half_a_second_is_enough(tiny_codec: StftCodec) -> None:
    audio = decoded(tiny_codec, seed=1)[0, :, 4000:12000]
    found = find_grid(audio, tiny_codec)
    assert found.found and found.offset == -4000 % HOP


def others() -> Iterator[Tensor]:
    yield 0.1 * torch.randn(1, 2 * RATE, generator=torch.Generator().manual_seed(0))
    yield torch.zeros(1, RATE)
    yield make_tone(2.0, 7)
    corpus = open_corpus("recipes/data/allison", split="validation", max_seconds=8)
    for entry in corpus.entries[:3]:
        yield corpus.load(entry, RATE).waveform


def test_noise_silence_and_speech_have_no_grid(tiny_codec: StftCodec) -> None:
    for audio in others():
        found = find_grid(audio, tiny_codec)
        assert not found.found and found.score < 6


def test_audio_of_few_frames_has_no_score(tiny_codec: StftCodec) -> None:
    found = find_grid(decoded(tiny_codec, 0)[0, :, : MIN_FRAMES * HOP], tiny_codec)
    assert not found.found and math.isnan(found.score)
    assert tiny_codec.encode(torch.ones(1, 1, 1), grid="auto").shape == (1, 4, 1)


def test_short_frames_have_no_score() -> None:
    found = find_grid(make_tone(0.5, 0), BlockCodec())  # frames of 4 samples
    assert not found.found and math.isnan(found.score)


def test_encoding_on_the_grid_gives_the_codes_from_before_the_cut(tiny_codec: StftCodec) -> None:
    whole = decoded(tiny_codec, seed=2)
    codes, start = tiny_codec.encode(whole), 1234
    audio = whole[..., start:]
    encoded = tiny_codec.encode_with_side(audio, grid="auto")
    assert encoded.side[LEAD].tolist() == [[start % HOP]]
    assert encoded.codes.shape[-1] == codes.shape[-1] - start // HOP
    same = encoded.codes == codes[..., start // HOP :]
    assert same[..., 12:].all()
    assert (tiny_codec.encode(audio)[..., 12:80] != codes[..., 15:83]).double().mean() > 0.3
    by_hand = tiny_codec.encode(audio, grid=-start % HOP)
    assert torch.equal(by_hand, encoded.codes)
    assert torch.equal(tiny_codec.encode(audio, grid="auto"), encoded.codes)


def test_decoding_puts_every_sample_back_in_its_place(tiny_codec: StftCodec) -> None:
    whole = decoded(tiny_codec, seed=2)
    again = tiny_codec.decode(tiny_codec.encode(whole), whole.shape[-1])
    audio = whole[..., 1234:]
    encoded = tiny_codec.encode_with_side(audio, grid="auto")
    back = tiny_codec.decode(encoded.codes, audio.shape[-1], encoded.side)
    assert back.shape == audio.shape
    assert near(back[..., 20 * HOP :], again[..., 1234 + 20 * HOP :])
    everything = tiny_codec.decode(encoded.codes, side=encoded.side)
    assert everything.shape[-1] == encoded.codes.shape[-1] * HOP - 1234 % HOP
    stable, _ = tiny_codec.decode(encoded.codes, audio.shape[-1], encoded.side, stable=True)
    assert stable.shape == audio.shape


def test_items_of_a_batch_have_grids_of_their_own(tiny_codec: StftCodec) -> None:
    clips = [decoded(tiny_codec, 2)[0, :, 1234:], decoded(tiny_codec, 3, 1.0)[0, :, 77:]]
    clips.append(make_tone(1.5, 9))
    alone = [tiny_codec.encode_with_side(clip[None], grid="auto") for clip in clips]
    assert [int(e.side[LEAD]) for e in alone] == [1234 % HOP, 77, 0]
    together = tiny_codec.encode_batch_with_side(clips, grid="auto")
    for one, item in zip(alone, together, strict=True):
        assert torch.equal(one.codes[0], item.codes)
        assert torch.equal(one.side[LEAD][0], item.side[LEAD])
    sides = [item.side for item in together]
    lengths = [clip.shape[-1] for clip in clips]
    back = tiny_codec.decode_batch([item.codes for item in together], lengths, sides)
    for one, clip, audio in zip(alone, clips, back, strict=True):
        expected = tiny_codec.decode(one.codes, clip.shape[-1], one.side)
        assert audio.shape == clip.shape and near(audio, expected[0])
    pair = torch.cat([clips[1][..., :10000], clips[2][..., :10000]])[:, None]
    encoded = tiny_codec.encode_with_side(pair, lengths=[10000, 5000], grid=HOP - 77)
    assert encoded.side[LEAD].tolist() == [[77.0], [77.0]]
    assert tiny_codec.decode(encoded.codes, 10000, encoded.side).shape == (2, 1, 10000)


def test_blocks_have_the_codes_of_the_whole(tiny_codec: StftCodec) -> None:
    audio = decoded(tiny_codec, 2)[0, :, 1234:]
    whole = tiny_codec.encode_with_side(audio[None], grid="auto")
    encoded = encode_blocks(tiny_codec, cut(audio, [777, 0, 5000]), grid="auto")
    assert torch.equal(encoded.codes, whole.codes) and encoded.side == whole.side
    blocks = list(decode_blocks(tiny_codec, whole.codes, audio.shape[-1], whole.side))
    expected = tiny_codec.decode(whole.codes, audio.shape[-1], whole.side)
    assert torch.equal(torch.cat(blocks, -1), expected)
    with pytest.raises(ValueError, match="0 samples in all blocks"):
        encode_blocks(tiny_codec, [], grid="auto")


def test_a_splice_has_two_grids_and_their_border(tiny_codec: StftCodec) -> None:
    first, second = decoded(tiny_codec, 2)[0, :, 100:], decoded(tiny_codec, 3)[0, :, 5000:]
    border = first.shape[-1]
    found = find_grids(torch.cat([first, second], -1), tiny_codec)
    assert [s.grid.offset for s in found if s.grid] == [-100 % HOP, (border - 5000) % HOP]
    assert len(found) == 2 and abs(found[0].end - border) <= 2 * HOP
    assert found[0].start == 0 and found[1].start == found[0].end
    assert found[1].end == border + second.shape[-1]


def test_other_audio_is_a_segment_without_grid(tiny_codec: StftCodec) -> None:
    (alone,) = find_grids(make_tone(1.0, 7), tiny_codec)
    assert alone.grid is None and (alone.start, alone.end) == (0, RATE)


def test_what_is_no_grid_is_refused(tiny_codec: StftCodec) -> None:
    tone = make_tone(0.5, 0)[None]
    for grid in (-1, HOP, True, "yes", 1.5):
        with pytest.raises(ValueError, match=r'pass "auto", None, or an offset of 0\.\.319'):
            tiny_codec.encode(tone, grid=grid)
    chunked = MAKERS["encodec-48k"]()
    with pytest.raises(ValueError, match="overlapping chunks"):
        chunked.encode(codec_tone(chunked), grid="auto")
    with pytest.raises(ValueError, match="overlapping chunks"):
        find_grids(make_tone(0.5, 0), chunked)
    codes = tiny_codec.encode(tone)
    for lead in ([[320.0]], [[0.5]], [[-1.0]], [[1.0], [2.0]], [[math.nan]]):
        with pytest.raises(ValueError, match="for each of 1 items"):
            tiny_codec.decode(codes, side={LEAD: torch.tensor(lead)})
    with pytest.raises(ValueError, match=r"hold 1\.\.7999 samples"):
        tiny_codec.decode(codes, 8000, {LEAD: torch.tensor([[1.0]])})
    with pytest.raises(ValueError, match="NaN"):
        find_grid(torch.full((1, RATE), math.nan), tiny_codec)
