"""The test utterances of a run: choice, generation by task, token accuracy, samples."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tokgen.audio.files import read_audio
from tokgen.corpus.listed import open_corpus
from tokgen.evaluation.accuracy import TIMES, token_accuracy
from tokgen.evaluation.samples import Column, write_samples
from tokgen.generation.held_out import choose_held_out, longest_clip, training_and_test_tokens
from tokgen.generation.prompts import TaskSettings
from tokgen.generation.sampling import SamplingSettings
from tokgen.modelling.masked import MaskedTransformer, ModelSettings
from tokgen.runs.store import ClipStore

SAMPLING = SamplingSettings(steps=(2, 1))
SMALL = ModelSettings(dim=32, depth=1, heads=2)


@pytest.fixture(scope="module")
def tokens(tiny_corpus, tiny_codec, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return training_and_test_tokens(str(tiny_corpus), None, tiny_codec, cache, "log_mel")[0]


@pytest.fixture(scope="module")
def held_out(tokens, tiny_corpus, tiny_codec):
    return choose_held_out(tokens, tiny_codec, str(tiny_corpus), n=9)


@pytest.fixture(scope="module")
def model(tokens, tiny_codec):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaskedTransformer.for_tokens(tiny_codec, tokens, SMALL).eval()


def test_utterances_come_with_all_that_is_known_of_them(held_out, tiny_codec) -> None:
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


def test_a_fingerprint_tells_utterances_apart(held_out) -> None:
    from dataclasses import replace

    others = [
        held_out.part([1]),
        replace(held_out, originals=[0.5 * w for w in held_out.originals]),
        replace(held_out, conditioning=None),
        replace(held_out, texts=["thanks", held_out.texts[1]]),
    ]
    found = {h.fingerprint for h in (held_out, *others)}
    assert len(found) == 5 and held_out.fingerprint == held_out.part([0, 1]).fingerprint


def test_a_choice_that_is_empty_names_the_limits(tokens, tiny_codec, tiny_corpus) -> None:
    assert len(choose_held_out(tokens, tiny_codec, str(tiny_corpus), n=1)) == 1
    long = choose_held_out(tokens, tiny_codec, str(tiny_corpus), n=9, min_seconds=1.5)
    assert long.texts == ["your call may be recorded"] and long.items == [1]
    with pytest.raises(ValueError, match="n_test = 9, min_test_seconds = 5"):
        choose_held_out(tokens, tiny_codec, str(tiny_corpus), n=9, min_seconds=5)


def test_tokens_of_another_test_corpus(tiny_corpus, tiny_codec, tmp_path) -> None:
    found = training_and_test_tokens(str(tiny_corpus), str(tiny_corpus), tiny_codec, tmp_path, None)
    assert set(found[0].splits) == {"train", "validation", "test"}
    assert set(found[1].splits) == {"test"} and found[1].provenance.conditioning is None
    longest = longest_clip(str(tiny_corpus), found[0])
    entries = open_corpus(tiny_corpus, split="train").entries
    assert longest.shape[-1] == round(16000 * max(e.seconds for e in entries))


@pytest.mark.parametrize("name", ["continue", "infill"])
def test_tasks_keep_what_they_promise(held_out, model, name) -> None:
    task = TaskSettings(name, prompt_seconds=0.4, gap_seconds=0.4)
    made = held_out.generate(model, task, SAMPLING, seed=0)
    told = held_out.generate(
        model, TaskSettings(name, 0.4, 0.4, conditioned=True), SAMPLING, seed=0
    )
    for i, (a, b, codes) in enumerate(zip(made, told, held_out.codes, strict=True)):
        n, item = held_out.n_samples[i], held_out.items[i]
        keep = task.keep(held_out.codec.spec, n, seed=0, item=item)
        assert keep.any() and not keep.all()
        assert a.codes[keep].equal(codes[keep]) and b.codes[keep].equal(codes[keep])
    assert not all(a.codes.equal(b.codes) for a, b in zip(made, told, strict=True))


def test_vocoding_needs_a_conditioning(held_out, model) -> None:
    from dataclasses import replace

    floor = held_out.generate(model, TaskSettings(), SAMPLING, seed=0, unconditional=True)
    made = held_out.generate(model, TaskSettings(), SAMPLING, seed=0)
    assert not floor[1].codes.equal(made[1].codes)
    with pytest.raises(ValueError, match="task 'vocode' generates from a conditioning"):
        replace(held_out, conditioning=None).generate(model, TaskSettings(), SAMPLING, seed=0)


# -- token accuracy ------------------------------------------------------------


class Oracle(torch.nn.Module):
    """Knows the codes up to a level, and says 0 above."""

    def __init__(self, held_out, known: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.codes = {c.shape[-1]: c for c in held_out.codes}
        self.known, self.mask_id, self.seen = known, held_out.codec.spec.codebook_size, []

    def forward(self, tokens, conditioning, *, level):
        codes = self.codes[tokens.shape[-1]]
        self.seen.append((tokens, level))
        said = torch.stack([codes[k] if k < self.known else 0 * codes[k] for k in level.tolist()])
        return torch.nn.functional.one_hot(said, self.mask_id).float()


def test_accuracy_counts_hidden_codes_by_level(held_out) -> None:
    oracle = Oracle(held_out, known=2)
    hits, seen = token_accuracy(oracle, held_out)
    assert hits.shape == seen.shape == (2, 4)
    np.testing.assert_array_equal(hits[:, :2], seen[:, :2])
    zeros = np.stack([(c[2:] == 0).double().mean(-1).numpy() for c in held_out.codes])
    np.testing.assert_allclose(hits[:, 2:] / seen[:, 2:], zeros, atol=0.1)
    for tokens, level in oracle.seen:
        assert level.tolist() == [k for k in range(4) for _ in TIMES]
        for row, k in zip(tokens, level.tolist(), strict=True):
            assert (row[k + 1 :] == 60).all() and (row[:k] < 60).all()
    shares = [(t[0, 0] == 60).double().mean().item() for t, _ in oracle.seen]
    assert shares == pytest.approx([np.cos(np.pi * TIMES[0] / 2)] * 2, abs=0.02)
    again = token_accuracy(Oracle(held_out, known=2), held_out)
    np.testing.assert_array_equal(again[0], hits)


def test_accuracy_of_a_model_does_not_depend_on_company(held_out, model) -> None:
    both = token_accuracy(model, held_out)
    one = token_accuracy(model, held_out.part([1]))
    np.testing.assert_array_equal(both[0][1:], one[0])


def test_accuracy_goes_on_after_a_kill(held_out, model, tmp_path) -> None:
    whole = token_accuracy(model, held_out)
    store = ClipStore(tmp_path, "tokens", "plan")
    token_accuracy(model, held_out, store=store)
    sorted(store.folder.iterdir())[1].unlink()
    again = token_accuracy(model, held_out, store=store)
    np.testing.assert_array_equal(whole, again)
    np.testing.assert_array_equal(token_accuracy(None, held_out, store=store), again)


# -- samples -------------------------------------------------------------------


def test_samples_and_their_index(held_out, tmp_path) -> None:
    columns = [
        Column("original", "original", None, 16000, held_out.originals),
        Column("a/b generated", "generated", "a/b", 16000, held_out.resynthesis()[:1]),
    ]
    write_samples(tmp_path, columns, held_out.ids, held_out.texts, 5)
    index = json.loads((tmp_path / "index.json").read_text())
    assert [c["name"] for c in index["columns"]] == ["original", "a/b generated"]
    assert index["columns"][0]["codec"] is None and index["columns"][1]["codec"] == "a/b"
    assert [set(c["files"]) for c in index["clips"]] == [
        {"original", "a/b generated"}, {"original"},
    ]  # fmt: skip
    waveform, _ = read_audio(tmp_path / index["clips"][1]["files"]["original"])
    torch.testing.assert_close(waveform, held_out.originals[1], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="same files"):
        write_samples(tmp_path, [columns[0], columns[0]], held_out.ids, held_out.texts, 1)
