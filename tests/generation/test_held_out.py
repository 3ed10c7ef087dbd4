"""Tests of held-out utterances: choice, fingerprint, generation by task."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from makers.audio import make_tone
from makers.codecs import make_stft_codec, make_variable
from makers.held_out import make_held_out, make_small_model
from tokgen.audio.files import write_audio
from tokgen.corpus.listed import open_corpus
from tokgen.generation.corpora import check_corpora, training_and_test_tokens
from tokgen.generation.held_out import choose_held_out, longest_clip
from tokgen.generation.prompts import task_prompt
from tokgen.generation.settings import SamplingSettings, TaskSettings
from tokgen.zoo.stft import StftCodec

SAMPLING = SamplingSettings(steps=(2, 1))


@pytest.fixture(scope="module")
def tokens_and_held_out(tiny_corpus, tiny_codec, tmp_path_factory):
    return make_held_out(tiny_corpus, tiny_codec, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def tokens(tokens_and_held_out):
    return tokens_and_held_out[0]


@pytest.fixture(scope="module")
def held_out(tokens_and_held_out):
    return tokens_and_held_out[1]


@pytest.fixture(scope="module")
def model(tokens, tiny_codec):
    return make_small_model(tiny_codec, tokens)


def test_held_out_lists_agree(held_out, tiny_codec) -> None:
    assert held_out.texts == ["thank you", "your call may be recorded"]
    assert held_out.items == [0, 1] and held_out.n_samples == [16000, 30400]
    for original, codes, frames in zip(
        held_out.originals, held_out.codes, held_out.conditioning, strict=True
    ):
        assert codes.equal(tiny_codec.encode(original[None])[0])
        assert frames.shape == (codes.shape[-1], 80)
    for audio, original in zip(held_out.resynthesis(), held_out.originals, strict=True):
        torch.testing.assert_close(audio, tiny_codec.roundtrip(original[None])[0])
    assert held_out.seconds == pytest.approx(2.9)
    assert held_out.part([1]).ids == held_out.ids[1:]


def test_fingerprint_depends_on_every_list(held_out) -> None:
    others = [
        held_out.part([1]),
        replace(held_out, originals=[0.5 * w for w in held_out.originals]),
        replace(held_out, conditioning=None),
        replace(held_out, texts=["thanks", held_out.texts[1]]),
    ]
    found = {h.fingerprint for h in (held_out, *others)}
    assert len(found) == 5 and held_out.fingerprint == held_out.part([0, 1]).fingerprint


@pytest.mark.parametrize("name", ["vocode", "continue", "infill"])
def test_a_variable_bitrate_keeps_and_generates_depth(tiny_corpus, tmp_path, name) -> None:
    codec = make_variable(1.0)
    tokens, held_out = make_held_out(tiny_corpus, codec, tmp_path)
    model = make_small_model(codec, tokens)
    [*resynthesized] = held_out.resynthesis()
    for i, (waveform, original) in enumerate(zip(resynthesized, held_out.originals, strict=True)):
        assert torch.allclose(waveform, codec.roundtrip(original[None])[0], atol=1e-5)
        encoded = codec.encode_with_side(original[None])
        assert torch.equal(held_out.depths[i], encoded.depth[0])
    task = TaskSettings(name, prompt_seconds=0.4, gap_seconds=0.4)
    made = held_out.generate(model, task, SAMPLING, seed=0)
    for found, keep, codes, depth in zip(
        made, held_out.keep(task, seed=0), held_out.codes, held_out.depths, strict=True
    ):
        assert torch.equal(found.codes[keep], codes[keep])
        assert torch.equal(found.depth[keep.any(0)], depth[keep.any(0)])
        assert not torch.equal(found.depth, depth)
    other = replace(held_out, sides=[{"depth": torch.ones(len(d))} for d in held_out.depths])
    assert other.fingerprint != held_out.fingerprint


def test_limits_of_the_choice(tokens, tiny_codec, tiny_corpus) -> None:
    assert len(choose_held_out(tokens, tiny_codec, str(tiny_corpus), n=1)) == 1
    long = choose_held_out(tokens, tiny_codec, str(tiny_corpus), n=9, min_seconds=1.5)
    assert long.texts == ["your call may be recorded"] and long.items == [1]
    with pytest.raises(ValueError, match="n_test = 9, min_test_seconds = 5"):
        choose_held_out(tokens, tiny_codec, str(tiny_corpus), n=9, min_seconds=5)


def test_separate_test_corpus(tiny_corpus, tiny_codec, tmp_path) -> None:
    found = training_and_test_tokens(str(tiny_corpus), str(tiny_corpus), tiny_codec, tmp_path, None)
    assert set(found[0].splits) == {"train", "validation", "test"}
    assert set(found[1].splits) == {"test"} and found[1].provenance.conditioning is None
    longest = longest_clip(str(tiny_corpus), found[0])
    entries = open_corpus(tiny_corpus, split="train").entries
    assert longest.shape[-1] == round(16000 * max(e.seconds for e in entries))


def test_the_longest_clip_is_one_that_the_corpus_has(
    tokens, tiny_codec, tiny_corpus, tmp_path
) -> None:
    """Tokens may be compared with the audio of their test split alone."""
    order = sorted(tokens.splits["train"], key=lambda row: -row["n_samples"])
    shutil.copytree(tiny_corpus, tmp_path / "c")
    (tmp_path / "c" / order[0]["id"]).with_suffix(".wav").unlink()
    found = longest_clip(str(tmp_path / "c"), tokens)
    assert found.shape[-1] == order[1]["n_samples"]
    write_audio(tmp_path / "d" / "other.wav", make_tone(0.6, 1), 16000)
    decoded = longest_clip(str(tmp_path / "d"), tokens, tiny_codec)
    assert decoded.equal(longest_clip(None, tokens, tiny_codec))
    with pytest.raises(ValueError, match="has none of the training utterances of the tokens"):
        longest_clip(str(tmp_path / "d"), tokens)


@pytest.mark.parametrize("name", ["continue", "infill"])
def test_tasks_keep_their_codes(held_out, model, name) -> None:
    task = TaskSettings(name, prompt_seconds=0.4, gap_seconds=0.4)
    made = held_out.generate(model, task, SAMPLING, seed=0)
    conditioned = held_out.generate(
        model, TaskSettings(name, 0.4, 0.4, conditioned=True), SAMPLING, seed=0
    )
    for i, (a, b, codes) in enumerate(zip(made, conditioned, held_out.codes, strict=True)):
        n, item = held_out.n_samples[i], held_out.items[i]
        keep = task_prompt(task, held_out.codec.spec, n, seed=0, item=item)
        assert keep.any() and not keep.all()
        assert a.codes[keep].equal(codes[keep]) and b.codes[keep].equal(codes[keep])
    assert not all(a.codes.equal(b.codes) for a, b in zip(made, conditioned, strict=True))


def test_vocode_needs_conditioning(held_out, model) -> None:
    unconditional = held_out.generate(model, TaskSettings(), SAMPLING, seed=0, unconditional=True)
    made = held_out.generate(model, TaskSettings(), SAMPLING, seed=0)
    assert not unconditional[1].codes.equal(made[1].codes)
    with pytest.raises(ValueError, match="task 'vocode' generates from a conditioning"):
        replace(held_out, conditioning=None).generate(model, TaskSettings(), SAMPLING, seed=0)


def test_a_missing_split_is_noticed_before_any_encoding(tiny_corpus, tmp_path) -> None:
    class Silent(StftCodec):
        def encode_batch_with_side(self, waveforms):
            raise AssertionError("encoded")

    codec = make_stft_codec()
    shutil.copytree(tiny_corpus, tmp_path / "c")
    table = (tmp_path / "c" / "metadata.csv").read_text().replace(",train", ",other")
    (tmp_path / "c" / "metadata.csv").write_text(table)
    silent = Silent(codec.model, codec.spec)
    with pytest.raises(ValueError, match=r"has no train split; it has .*other"):
        training_and_test_tokens(str(tmp_path / "c"), None, silent, tmp_path / "cache", None)


def test_published_parts_are_train_and_test(tiny_codec, tmp_path) -> None:
    for i, split in enumerate(("train-clean-100", "train-other-500", "test-clean")):
        clip = tmp_path / f"LibriTTS/{split}/{i}/5/{i}_5_000000_000000.wav"
        write_audio(clip, make_tone(0.6, i), 16000)
    corpus = f"libritts:{tmp_path}/LibriTTS"
    check_corpora(corpus, None, n=1)
    tokens, test = training_and_test_tokens(corpus, None, tiny_codec, tmp_path / "c", "mfcc")
    assert {name: len(rows) for name, rows in tokens.splits.items()} == {"train": 2, "test": 1}
    held_out = choose_held_out(test, tiny_codec, corpus, n=1)
    assert held_out.ids == ["2_5_000000_000000"]
    assert longest_clip(corpus, tokens).shape == (1, 9600)
