"""Codecs of a continuous codec and an offline quantizer."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from torch import Tensor

import tokgen
from makers.audio import make_tone
from makers.codecs import noisy_decoder
from makers.continuous import make_continuous, make_vibevoice
from tokgen.bitstream.codes_file import read_codes
from tokgen.bitstream.files import encode_file
from tokgen.codec.continuous import ContinuousCodec
from tokgen.codec.stable.settings import StableDecoding
from tokgen.codec_training.trainable_offline import TrainableOffline
from tokgen.corpus.listed import open_corpus
from tokgen.quantizers.offline.registry import make_quantizer
from tokgen.storage import Storage
from tokgen.tokens.engines.job import Job
from tokgen.tokens.preparing import provenance_for
from tokgen.tokens.shards import ShardStore
from tokgen.zoo.offline import OfflineCodec

QINCO = {"preset": None, "n_blocks": 1, "embedding_dim": 8, "hidden_dim": 8, "preselect": 4}


def speech(seconds: float = 1.0, seed: int = 0) -> Tensor:
    return make_tone(seconds, seed)[None]


def frames_of(continuous: ContinuousCodec) -> Tensor:
    rate = continuous.spec.sample_rate
    audio = torch.cat([make_tone(3 * rate / 16000, seed) for seed in range(4)], -1)
    return continuous.encode(audio[None])[0].mT


def make_offline(kind: str = "kmeans", beam: int = 1, continuous: ContinuousCodec | None = None):
    continuous = continuous or make_continuous()
    more = QINCO if kind == "qinco2" else {"steps": 20} if "fsq" in kind else {}
    dim = continuous.spec.latent_dim
    quantizer = make_quantizer(kind, dim=dim, n_codebooks=4, codebook_size=16, **more)
    frames = frames_of(continuous)
    if kind == "qinco2":
        quantizer.start(frames, 0, False)
    else:
        quantizer.fit(frames, progress=False)
    return OfflineCodec.join(continuous, quantizer, "mine", beam=beam)


def test_its_hashes(tmp_path):
    """One is of the encoder and the quantizer; the card has the other, as the folder is loaded."""
    codec = make_offline()
    codes, hashes = codec.encode(speech()), (codec.spec.encoder_hash, codec.spec.weight_hash)
    with noisy_decoder(codec):
        found = OfflineCodec.from_model(codec.model).spec
        assert codec.encode(speech()).equal(codes)
    assert found.encoder_hash == hashes[0] and found.weight_hash not in hashes
    assert make_offline("pq").spec.encoder_hash != hashes[0] != hashes[1]
    codec.save_pretrained(tmp_path, dtype=torch.float16)
    half = tokgen.load_codec(tmp_path).spec.weight_hash
    assert half != hashes[1] and f"`{half}`" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "beam"), [("kmeans", 1), ("kmeans", 4), ("qinco2", 4), ("pq", 1), ("rfsq", 2)]
)
def test_it_is_a_codec_like_others(kind, beam, tmp_path):
    codec = make_offline(kind, beam)
    first, second = speech(1.3), speech(0.7, seed=1)
    codes = codec.encode(first)
    assert codes.shape == (1, 4, 65) and codes.min() >= 0 and codes.max() < 16
    assert codec.roundtrip(first).shape == first.shape
    assert codec.spec.bitrate == 50 * 4 * 4 and codec.spec.licence == "CC0-1.0"
    batch = codec.encode_batch([first[0], second[0]])
    assert batch[0].equal(codes[0]) and batch[1].equal(codec.encode(second)[0])

    codec.save_pretrained(tmp_path / "mine")
    loaded = tokgen.load_codec(tmp_path / "mine")
    assert loaded.spec == codec.spec
    assert loaded.encode(first).equal(codes)
    assert loaded.decode(codes).equal(codec.decode(codes))
    assert (tmp_path / "mine/README.md").is_file()
    assert (
        tokgen.load_continuous(tmp_path / "mine/autoencoder")
        .encode(first)
        .equal(codec.continuous.encode(first))
    )


def test_long_audio_gives_the_codes_of_whole_audio_block_by_block():
    codec = make_offline(beam=4)
    codec.continuous.window_frames = 40
    audio = speech(3.0)
    whole = codec.encode(audio)
    coder = codec.block_encoder()
    pieces = [*(e for block in audio.split(5000, -1) for e in coder.push(block)), *coder.finish()]
    assert torch.cat([piece.codes for piece in pieces], -1).equal(whole)
    decoder = codec.block_decoder()
    heard = [x for piece in pieces for x in decoder.push(piece)]
    heard += list(decoder.finish())
    assert torch.cat(heard, -1)[..., : audio.shape[-1]].equal(codec.decode(whole, audio.shape[-1]))


def test_fewer_levels_are_searched_anew(tmp_path):
    codec = make_offline(beam=8)
    audio = speech(2.0)
    few = codec.encode(audio, 2)
    latents = codec.continuous.encode(audio)

    def left(codes: Tensor) -> float:
        return float((codec.dequantize(codes) - latents).square().mean())

    assert few.shape[1] == 2 and not few.equal(codec.encode(audio)[:, :2])
    assert left(few) < left(codec.encode(audio)[:, :2])
    assert left(codec.encode(audio)) < left(codec.encode(audio, beam=1))

    codec.save_pretrained(tmp_path / "mine")
    named = tokgen.load_codec(f"{tmp_path / 'mine'}:0.4")
    assert named.spec.n_codebooks == 2 and named.encode(audio).equal(few)
    with pytest.raises(ValueError, match=r"bandwidth 0.5 kbps: the model has 0.2, 0.4, 0.6, 0.8"):
        tokgen.load_codec(tmp_path / "mine", bandwidth=0.5)


def test_a_tuned_decoder_keeps_the_codes(tmp_path):
    codec = make_offline()
    codec.save_pretrained(tmp_path / "mine")
    trainable = TrainableOffline(str(tmp_path / "mine"))
    with torch.no_grad():
        trainable.decoder.head.bias += 0.1
    trainable.save(tmp_path / "tuned")
    tuned = tokgen.load_codec(tmp_path / "tuned")
    audio = torch.cat([speech(5.0, seed) for seed in range(3)], -1)
    codes = codec.encode(audio)
    assert tuned.encode(audio).equal(codes) and not tuned.decode(codes).equal(codec.decode(codes))


def test_another_process_searches_as_this_one(tiny_corpus, tmp_path):
    make_offline(beam=4).save_pretrained(tmp_path / "mine")
    codec, corpus = tokgen.load_codec(tmp_path / "mine"), open_corpus(tiny_corpus)
    for coder in (codec, codec.with_beam(1), codec.with_beam(2)):
        provenance = provenance_for(corpus, coder, None, None, "float32")
        store = ShardStore(Storage(tmp_path / "out"), provenance, {"units": 1})
        more = {"settings": None, "batch_seconds": 9.0, "precision": "float32"}
        job = Job(corpus, coder, store, n_codebooks=4, **more)
        again = pickle.loads(pickle.dumps(job))
        again.load_codec("cpu")
        assert again.codec.search == job.codec.search


def test_codes_that_are_not_nested_are_refused_in_part():
    codec = make_offline("pq")
    codes = codec.encode(speech())
    with pytest.raises(ValueError, match="not nested, so it needs all 4"):
        codec.encode(speech(), 2)
    with pytest.raises(ValueError, match="not nested, so it needs all 4"):
        codec.decode(codes[:, :2])
    with pytest.raises(ValueError, match="beam = 4: the quantizer of mine has none; use 1"):
        codec.encode(speech(), beam=4)


def test_whole_utterances_go_through_networks_without_stated_reach():
    codec = make_offline(continuous=make_vibevoice())
    first, second = torch.randn(2, 1, 1, 4000).mul(0.1).unbind()
    codes = codec.encode_batch([first[0], second[0, :, :2777]])
    assert codes[0].equal(codec.encode(first)[0])
    assert codes[1].equal(codec.encode(second[..., :2777])[0])
    with pytest.raises(ValueError, match="piece by piece"):
        codec.block_encoder()


def test_stable_decoding_keeps_the_codes():
    codec = make_offline()
    codes = codec.encode(speech(1.0))
    plain = codec.encode(codec.decode(codes))
    stable = codec.decode(codes, stable=StableDecoding(steps=60))
    kept = (codec.encode(stable.waveform) == codes).float().mean()
    assert kept > (plain == codes).float().mean()
    with pytest.raises(ValueError, match="cannot decode stably"):
        make_offline("qinco2").decode(codes, stable=True)


def test_parts_that_do_not_fit_are_refused(tmp_path):
    continuous, codec = make_continuous(), make_offline()
    narrow = make_quantizer("kmeans", dim=5, n_codebooks=1, codebook_size=2)
    with pytest.raises(ValueError, match="a quantizer of 5 dimensions for 8 latents"):
        OfflineCodec.join(continuous, narrow, "x")
    with pytest.raises(ValueError, match="beam = 3: ProductQuantizer has no search; use 1"):
        OfflineCodec.join(continuous, make_offline("pq").model.quantizer, "x", beam=3)

    for beam in (0, -3, 1025, 2.5):
        with pytest.raises(ValueError, match=rf"beam = {beam}: use 1 .greedy. to 1024"):
            OfflineCodec.join(continuous, codec.model.quantizer, "x", beam=beam)

    folder = tmp_path / "mine"
    codec.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"codebook_size": 32}))
    with pytest.raises(ValueError, match="codebook_size = 32, but its parts make it 16"):
        tokgen.load_codec(folder)


def test_a_beam_of_1_is_greedy_and_none_keeps_that_of_the_codec(tmp_path, tiny_corpus):
    codec = make_offline(beam=8)
    codec.save_pretrained(tmp_path / "mine")
    clip = next(iter(sorted(tiny_corpus.glob("*.wav"))))
    audio = tokgen.read_audio(clip, sample_rate=16000)[0][None]
    for beam, expected in ((None, codec.encode(audio)), (1, codec.encode(audio, beam=1))):
        out = tmp_path / f"{beam}.safetensors"
        encode_file(clip, tmp_path / "mine", out, beam=beam)
        assert read_codes(out).codes.equal(expected[0])
        tokens = tmp_path / f"tokens_{beam}"
        tokgen.tokenize_corpus(
            tiny_corpus, tmp_path / "mine", tokens, beam=beam, workers=1, progress=False
        )
        rows = tokgen.load_tokens(tokens)
        assert rows.provenance.beam == (beam or 8)
    assert not codec.encode(audio).equal(codec.encode(audio, beam=1))
