"""The recipe of offline quantizers: kills, reuse of latents, and wrong settings."""

from __future__ import annotations

import json
import signal

import pytest
from safetensors.torch import load_file

import tokgen
from makers.audio import make_tone
from makers.continuous import make_continuous
from makers.recipes import kill_when, launch, run
from tokgen.codec.identity import encodes_like

RECIPE = "quantize_offline.py"
QINCO = "{preset: null, n_blocks: 1, embedding_dim: 8, hidden_dim: 8, preselect: 4}"


@pytest.fixture(scope="module")
def continuous_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo") / "tiny-continuous"
    make_continuous().save_pretrained(folder)
    return folder


@pytest.fixture
def flags(continuous_folder, tiny_corpus, tmp_path):
    def make(name: str, **more: object) -> list[object]:
        settings = {
            "name": name, "runs": tmp_path, "codec": continuous_folder, "corpora": [tiny_corpus],
            "quantizer": "qinco2", "quantizer_settings": QINCO, "codebook_size": 16,
            "bitrate": 0.6, "beam": 4, "training.steps": 8, "training.batch_size": 64,
            "training.checkpoint_every": 2, "training.warmup": 0, "finetune_decoder": 3,
            "finetune.batch_size": 2, "finetune.seconds": 0.4, "finetune.adversarial_seconds": 0.2,
            "finetune.discriminator": "{periods: [], windows: [128], channels: 2}",
            "finetune.adversarial_warmup": 1, "finetune.checkpoint_every": 1, **more,
        }  # fmt: skip
        texts = {k: f"[{', '.join(map(str, v))}]" if isinstance(v, list) else v
                 for k, v in settings.items()}  # fmt: skip
        return [x for k, v in texts.items() for x in (f"--{k}", v)]

    return make


def test_a_run_that_is_killed_twice_ends_with_the_same_codec(flags, tmp_path):
    run(RECIPE, *flags("whole"))
    cut = tmp_path / "cut"
    process = launch(RECIPE, *flags("cut"))
    kill_when(process, lambda: (cut / "checkpoints/step-4").is_dir())
    assert process.returncode == -signal.SIGKILL
    process = launch(RECIPE, *flags("cut"))
    kill_when(process, lambda: (cut / "finetuned/checkpoints/step-1").is_dir())
    assert process.returncode == -signal.SIGKILL
    out = run(RECIPE, *flags("cut"))
    assert "of the variance of held-out frames" in out and "codec: " in out

    whole = tmp_path / "whole"
    for part in ("codec/quantizer", "codec/autoencoder", "finetuned/codec/autoencoder"):
        a, b = (load_file(p / part / "model.safetensors") for p in (whole, cut))
        assert all(a[name].equal(b[name]) for name in a), part
    found = json.loads((whole / "metrics.json").read_text())
    assert 0 < found["share_left"] <= found["share_left_greedy"] < 1

    # The decoder alone was trained: codes are those of the codec before.
    plain, tuned = (tokgen.load_codec(whole / p) for p in ("codec", "finetuned/codec"))
    audio = make_tone(1.0, 0)[None]
    codes = plain.encode(audio)
    assert codes.equal(tuned.encode(audio)) and tuned.search.beam == 4
    assert encodes_like(plain.spec, tuned.spec)
    assert plain.spec.weight_hash != tuned.spec.weight_hash
    assert not plain.decode(codes).equal(tuned.decode(codes))
    assert "quantize_offline.py" in (whole / "codec/README.md").read_text()


def test_other_quantizers_reuse_the_latents(flags, tmp_path):
    run(RECIPE, *flags("first", quantizer="pq", quantizer_settings="{}", finetune_decoder=0))
    (latents,) = (tmp_path / "latents").iterdir()
    before = {p: p.stat().st_mtime_ns for p in latents.rglob("*.arrow")}
    more = {"quantizer": "kmeans", "quantizer_settings": "{}", "finetune_decoder": 0}
    run(RECIPE, *flags("second", frames=100, **more))
    assert before and before == {p: p.stat().st_mtime_ns for p in latents.rglob("*.arrow")}
    assert tokgen.load_codec(tmp_path / "second/codec").spec.n_codebooks == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"bitrate": 0.5}, "a level of 16 entries is 0.2 kbps at 50 frames per second; use 0.4 or"),
        ({"quantizer": "vq"}, "quantizer 'vq': known are kmeans, "),
        ({"quantizer_settings": "{rows: 3}"}, "rows"),
        ({"codebook_size": 4096}, "at least 4096 are needed"),
    ],
)
def test_wrong_settings_are_refused(more, message, flags):
    out = run(RECIPE, *flags("wrong", **more), code=1)
    assert message in out and "Traceback" not in out


def test_a_codec_with_codes_is_refused(flags, tiny_codec_folder):
    out = run(RECIPE, *flags("wrong", codec=tiny_codec_folder), code=1)
    assert "is not continuous" in out and "Traceback" not in out
