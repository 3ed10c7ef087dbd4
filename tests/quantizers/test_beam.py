"""Beam search: never worse than greedy, exhaustive if wide enough, each frame by itself."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from makers.audio import codec_tone
from makers.codecs import MAKERS, make_stft_codec
from tokgen.codec.long_audio import encode_blocks
from tokgen.codec.spec import DISTANCES, MAX_BEAM, Search
from tokgen.codec.streaming import CodecStream
from tokgen.quantizers import beam as module
from tokgen.quantizers.beam import Level, path_error, search_codes
from tokgen.quantizers.residual import ResidualQuantizer

SEARCHABLE = ["stft", "dac-even", "encodec-24k", "encodec-48k", "xcodec", "speechtokenizer"]


def make_quantizer(seed=0, **sizes):
    torch.manual_seed(seed)
    usual = {"latent_dim": 16, "n_codebooks": 4, "codebook_size": 32, "codebook_dim": 4}
    return ResidualQuantizer(**{**usual, **sizes}).eval()


def plain_levels(seed=0, n=4, size=32, dim=16):
    g = torch.Generator().manual_seed(seed)
    tables = [torch.randn(size, dim, generator=g) * 0.7**k for k in range(n)]
    return [Level(rows, rows) for rows in tables]


def choose_greedily(levels, latents):
    """Nearest row of each level, for levels without a projection."""
    residual, codes = latents.mT, []
    for level in levels:
        codes.append(torch.cdist(residual, level.rows).argmin(-1))
        residual = residual - level.rows[codes[-1]]
    return torch.stack(codes, 1)


def kind(name, seed=0, **sizes):
    """Levels, latents [B, D, T] and greedy codes of either kind of quantizer."""
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, 16, 21, generator=g)
    if name == "factorised":
        quantizer = make_quantizer(seed, **sizes)
        return quantizer.search_levels(), latents, quantizer.encode(latents)[0]
    levels = plain_levels(seed, sizes.get("n_codebooks", 4), sizes.get("codebook_size", 32))
    return levels, latents, choose_greedily(levels, latents)


def errors(levels, latents, codes, distance):
    return path_error(levels, latents.mT.flatten(0, 1), codes.mT.flatten(0, 1), distance)


@pytest.mark.parametrize("name", ["factorised", "plain"])
@pytest.mark.parametrize("distance", DISTANCES)
@given(seed=st.integers(0, 10**6), beam=st.integers(2, 40), keep=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_the_error_is_never_larger_than_that_of_greedy(name, distance, seed, beam, keep):
    levels, latents, greedy = kind(name, seed)
    found = search_codes(levels, latents, greedy, Search(beam, distance, keep))
    assert found.shape == (2, keep, 21) and found.dtype == torch.int64
    ours, theirs = (errors(levels, latents, c[:, :keep], distance) for c in (found, greedy))
    assert (ours <= theirs).all()


@pytest.mark.parametrize("name", ["factorised", "plain"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_wide_beam_finds_the_optimum(name, distance):
    levels, latents, greedy = kind(name, n_codebooks=2, codebook_size=4)
    found = search_codes(levels, latents, greedy, Search(16, distance))
    every = torch.tensor(list(itertools.product(range(4), repeat=2)))  # [16, 2]
    frames = latents.mT.flatten(0, 1)
    by_hand = torch.stack(
        [path_error(levels, frames, p.expand(len(frames), -1), distance) for p in every]
    )
    ours = errors(levels, latents, found, distance)
    torch.testing.assert_close(ours, by_hand.min(0).values)
    assert (ours < errors(levels, latents, greedy, distance) - 1e-4).any()


def test_the_distances_are_those_of_the_docs():
    quantizer = make_quantizer()
    latents = torch.randn(1, 16, 9)
    codes, projected = quantizer.encode(latents)
    levels = quantizer.search_levels()
    lost = (latents - quantizer.decode(codes)).square().sum(1)[0]
    torch.testing.assert_close(errors(levels, latents, codes, "latent"), lost)
    ours, rows = (
        torch.nn.functional.normalize(x.unflatten(1, (4, 4)), dim=2)
        for x in (projected, quantizer.codebook_rows(codes))
    )
    by_hand = (ours - rows).square().sum((1, 2))[0]
    torch.testing.assert_close(errors(levels, latents, codes, "projected"), by_hand)


def test_one_level_is_chosen_as_the_lookup_does():
    levels, latents, greedy = kind("factorised")
    found = search_codes(levels, latents, greedy, Search(8, "projected", 1))
    assert found.equal(greedy[:, :1])


@pytest.mark.parametrize("distance", DISTANCES)
def test_frames_do_not_depend_on_each_other(distance, monkeypatch):
    levels, latents, greedy = kind("factorised")
    search = Search(6, distance)
    together = search_codes(levels, latents, greedy, search)
    monkeypatch.setattr(module, "MAX_SCORES", 6 * 32 * 5)  # five frames at a time
    assert search_codes(levels, latents, greedy, search).equal(together)
    alone = [
        search_codes(levels, latents[1:, :, t : t + 1], greedy[1:, :, t : t + 1], search)
        for t in range(21)
    ]
    assert torch.cat(alone, -1).equal(together[1:])


@pytest.mark.parametrize("size", [3, 60, 1024, 4096])
def test_the_smallest_of_many_scores(size):
    scores = torch.randn(20, size, generator=torch.manual_seed(0))
    for n in (1, 4, 16):
        values, places = module._smallest(scores, n)
        assert values.equal(scores.sort(-1).values[:, :n])
        assert scores.gather(1, places).equal(values)


def test_fitted_rows_come_back_more_often_with_a_beam():
    levels, latents, _ = kind("plain", seed=3)
    greedy = choose_greedily(levels, latents)

    def match(search):
        def choose(x):
            codes = choose_greedily(levels, x)
            return codes if search is None else search_codes(levels, x, codes, search)

        codes = choose(latents)
        rows = [level.rows[c] for level, c in zip(levels, codes.unbind(1), strict=True)]
        return (choose(sum(rows).mT) == codes).all(1).float().mean()

    assert greedy.shape == (2, 4, 21)
    assert match(None) < 0.9
    assert match(Search(16, "latent")) > 0.95


@pytest.fixture(scope="module", params=SEARCHABLE)
def codec(request):
    return make_stft_codec() if request.param == "stft" else MAKERS[request.param]()


def test_beam_1_is_greedy(codec):
    audio = codec_tone(codec, codec.spec.sample_rate)
    greedy = codec.encode(audio)
    assert codec.encode(audio, beam=1).equal(greedy)
    assert codec.with_beam(8).with_beam(1).encode(audio).equal(greedy)
    assert codec.with_beam(8).encode(audio, beam=1).equal(greedy)
    found = codec.encode(audio, beam=8)
    assert found.shape == greedy.shape and not found.equal(greedy)
    assert codec.encode(audio).equal(greedy)  # the codec itself has not changed


def test_a_batch_and_blocks_give_the_codes_of_the_item_alone(codec):
    rate = codec.spec.sample_rate
    searched = codec.with_beam(4)
    clips = [codec_tone(codec, n, seed)[0] for seed, n in enumerate([rate, rate // 3, 1])]
    for keep in (None, 1):
        alone = [codec.encode(clip[None], keep, beam=4)[0] for clip in clips]
        batch = (searched.for_levels(keep) if keep else searched).encode_batch(clips)
        assert all(torch.equal(a, b) for a, b in zip(batch, alone, strict=True))
        blocks = encode_blocks(searched, clips[0].split(999, dim=-1), keep)
        assert blocks.codes[0].equal(alone[0])


def test_fewer_levels_are_searched_for_themselves(codec):
    audio = codec_tone(codec, 2 * codec.spec.sample_rate)
    two, every = codec.encode(audio, 2, beam=8), codec.encode(audio, beam=8)
    assert two.shape[1] == 2 and not two.equal(every[:, :2])
    assert codec.with_beam(8).encode(audio, 2).equal(two)


def test_a_stream_searches_too():
    codec = make_stft_codec()
    audio = codec_tone(codec, 16000)
    stream = CodecStream(codec.with_beam(4))
    heard = torch.cat([*(stream.push(x) for x in audio.split(1000, -1)), stream.finish()], -1)
    expected = codec.decode(codec.encode(audio, beam=4), 16000)
    torch.testing.assert_close(heard, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["bigcodec", "wavtokenizer"])
def test_a_beam_over_one_level_is_greedy(name):
    codec = MAKERS[name]()
    audio = codec_tone(codec, codec.spec.sample_rate)
    assert codec.encode(audio, beam=4).equal(codec.encode(audio))
    assert codec.with_beam(4).search.distance == ("latent", "projected")[name == "bigcodec"]


def test_a_codec_without_beam_search_says_so():
    codec = MAKERS["mimi"]()
    audio = codec_tone(codec, 800)
    with pytest.raises(ValueError, match=r"beam = 4: .* has no beam search; use beam = 1, or"):
        codec.encode(audio, beam=4)
    assert codec.encode(audio, beam=1).equal(codec.encode(audio))


@pytest.mark.parametrize("beam", [0, -1, MAX_BEAM + 1])
def test_a_beam_out_of_range(beam):
    with pytest.raises(ValueError, match=rf"beam = {beam}: must be 1 \(greedy\) to 1024"):
        make_stft_codec().with_beam(beam)


def test_an_unknown_distance():
    with pytest.raises(ValueError, match="distance 'angle' is unknown; use projected, latent"):
        make_stft_codec().with_beam(2, "angle")
