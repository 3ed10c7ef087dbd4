"""FACodec gives the codes, the speaker vector and the audio of its published code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.rebuilt import FACODEC, facodec_checkpoints, make_facodec, write_facodec
from tokgen.audio.files import read_audio, write_audio
from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.codec.base import Codec
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.rebuilt.facodec import DECODER, ENCODER, FaCodec


@pytest.fixture(scope="module")
def codec() -> Codec:
    return make_facodec()


def tone(n_samples: int, seed: int = 0) -> Tensor:
    return make_tone(n_samples / 16000, seed)[None][..., :n_samples]


@torch.inference_mode()
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("n_frames", [1, 33])
def test_equals_the_published_code(tmp_path: Path, n_frames: int) -> None:
    import_torchaudio()  # the package imports it
    package = pytest.importorskip("ns3_codec", exc_type=ImportError)
    weights = facodec_checkpoints()
    encoder = package.FACodecEncoder(ngf=2, up_ratios=FACODEC["strides"], out_channels=256)
    decoder = package.FACodecDecoder(
        upsample_initial_channel=16,
        up_ratios=FACODEC["strides"][::-1],
        vq_dim=256,
        codebook_dim=4,
        codebook_size_prosody=6,  # as powers of 2
        codebook_size_content=6,
        codebook_size_residual=6,
    )
    encoder.load_state_dict(weights[ENCODER])
    missing, unknown = decoder.load_state_dict(weights[DECODER], strict=False)
    assert not unknown
    assert {name.split(".")[0] for name in missing} <= {
        "f0_predictor", "phone_predictor", "timbre_encoder",
    }  # fmt: skip
    assert [name for name in missing if "timbre" in name] == ["timbre_encoder.position_emb.pe"]
    encoder.eval(), decoder.eval()
    write_facodec(tmp_path)
    codec, waveform = load_codec(tmp_path), tone(320 * n_frames)
    _, theirs, _, _, speaker = decoder(encoder(waveform), eval_vq=False, vq=True)
    encoded = codec.encode_with_side(waveform)
    assert torch.equal(encoded.codes, theirs.transpose(0, 1))
    torch.testing.assert_close(encoded.side["speaker"], speaker)
    audio = decoder.inference(decoder.vq2emb(theirs), speaker)
    ours = codec.decode(encoded.codes, side=encoded.side)
    torch.testing.assert_close(ours, audio, atol=1e-4, rtol=0)
    assert n_frames < 2 or audio.std() > 0.01


def test_the_speaker_vector_is_of_the_whole_utterance(codec: Codec) -> None:
    waveform = tone(16000)
    one, part = (codec.encode_with_side(x) for x in (waveform, waveform[..., :8000]))
    assert one.side["speaker"].shape == part.side["speaker"].shape == (1, 16)
    assert not torch.allclose(one.side["speaker"], part.side["speaker"])


def test_another_speaker_changes_the_audio_and_not_the_codes(codec: Codec) -> None:
    one, other = codec.encode_with_side(tone(16000)), codec.encode_with_side(tone(16000, 1))
    audio = codec.decode(one.codes, side=one.side)
    assert not torch.allclose(codec.decode(one.codes, side=other.side), audio, atol=1e-3)
    with pytest.raises(ValueError, match=r"speaker of shape \(1, 3\)"):
        codec.decode(one.codes, side={"speaker": torch.zeros(1, 3)})


@torch.inference_mode()
def test_the_rest_quantizes_what_prosody_and_content_leave(codec: Codec) -> None:
    waveform = tone(8000)
    latents = codec.model.encoder.block(waveform)
    prosody, content, rest = codec.model.decoder.quantizer
    (first,), p = prosody(latents)
    _, c = content(latents)
    (last, _, _), _ = rest(latents - p - c)
    codes = codec.encode(waveform)[0]
    assert torch.equal(codes[0], first[0])
    assert (codes[3] == last[0]).float().mean() > 0.9  # p + c is rounded otherwise


def test_a_dataset_keeps_the_speaker_vector(codec: Codec, tmp_path: Path) -> None:
    (tmp_path / "wavs").mkdir()
    for i, n in enumerate((5000, 9000)):
        write_audio(tmp_path / "wavs" / f"{i}.wav", tone(n, i)[0], 16000)
    codec.save_pretrained(tmp_path / "codec")
    tokenize_corpus(tmp_path / "wavs", str(tmp_path / "codec"), tmp_path / "tokens")
    tokens = load_tokens(tmp_path / "tokens")
    (split,) = tokens.splits
    for i in range(2):
        audio, _ = read_audio(tmp_path / "wavs" / f"{i}.wav", sample_rate=16000)
        assert torch.equal(tokens.codes(split, i), codec.encode(audio[None]))
        decoded = tokens.decode(codec, split, i)
        torch.testing.assert_close(decoded, codec.roundtrip(audio[None]), atol=1e-5, rtol=1e-4)


def test_saves_and_loads(codec: Codec, tmp_path: Path) -> None:
    assert isinstance(codec, FaCodec)
    codec.save_pretrained(tmp_path / "mine")
    loaded = load_codec(tmp_path / "mine")
    assert loaded.spec.weight_hash == codec.spec.weight_hash
    waveform = tone(5000)
    assert torch.equal(loaded.encode(waveform), codec.encode(waveform))
    assert torch.equal(loaded.roundtrip(waveform), codec.roundtrip(waveform))


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    small = {"latent_dim": 16, "timbre_width": 8, "timbre_layers": 1}
    write_facodec(tmp_path, **small)
    (tmp_path / ENCODER).rename(tmp_path / "other.bin")
    with pytest.raises(
        ValueError, match=r"has no config\.json, and not all files of .*encoder\.bin"
    ):
        load_codec(tmp_path)
    (tmp_path / "other.bin").rename(tmp_path / ENCODER)
    state = facodec_checkpoints(**small)[DECODER]
    level = "quantizer.2.layers.1._codebook.weight"
    for wrong, message in (
        ({k: v for k, v in state.items() if k != "timbre_linear.bias"}, "lacks decoder.timbre_lin"),
        (
            {k: v for k, v in state.items() if k != "model.0.bias"},
            "does not have FACodec's weights",
        ),
        (state | {level: torch.zeros(3, 4)}, "tokgen runs FACodec with equal levels"),
        ({"a": 1}, "'a' is a int, not a tensor"),
    ):
        torch.save(wrong, tmp_path / DECODER)
        with pytest.raises(ValueError, match=message):
            load_codec(tmp_path)
