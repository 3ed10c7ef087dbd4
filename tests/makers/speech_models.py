"""Small random models of speech, saved as on the hub."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tokgen.audio.torchaudio_shim import import_torchaudio


def save_wavlm(folder: Path, kind: str = "WavLMForXVector") -> Path:
    """Save a random WavLM with an x-vector head and a few thousand weights, as on the hub."""
    import_torchaudio()
    import transformers

    config = transformers.WavLMConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_stride=(10, 8), conv_kernel=(20, 16), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, num_feat_extract_layers=2, tdnn_dim=(16, 16, 32),
        tdnn_kernel=(5, 3, 1), tdnn_dilation=(1, 2, 1), xvector_output_dim=24,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        getattr(transformers, kind)(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def save_wav2vec2(folder: Path) -> Path:
    """Save a random wav2vec2 CTC model with a few thousand weights, as on the hub."""

    import_torchaudio()
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    folder.mkdir(exist_ok=True)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGH"]
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(letters)}))
    processor = Wav2Vec2Processor(
        Wav2Vec2FeatureExtractor(), Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    )
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 8),
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_clap(folder: Path) -> Path:
    """Save the audio part of a random CLAP with some thousand weights, as on the hub."""
    import_torchaudio()
    from transformers import ClapAudioConfig, ClapAudioModelWithProjection, ClapFeatureExtractor

    config = ClapAudioConfig(
        patch_embeds_hidden_size=16, depths=[1, 1], num_attention_heads=[2, 2], hidden_size=32,
        projection_dim=24, enable_fusion=False, window_size=4, spec_size=128, num_mel_bins=16,
        patch_size=4, patch_stride=[4, 4],
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ClapAudioModelWithProjection(config).save_pretrained(folder)
    ClapFeatureExtractor(feature_size=16, truncation="rand_trunc").save_pretrained(folder)
    return folder


def save_whisper(folder: Path, *, multilingual: bool = True) -> Path:
    """Save a random Whisper with some thousand weights and a tokenizer of bytes, as on the hub."""
    import_torchaudio()
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocabulary = {letter: i for i, letter in enumerate(bytes_to_unicode().values())}
    folder.mkdir(exist_ok=True)
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[])
    marks = ["<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>",
             "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]  # fmt: skip
    stamps = [f"<|{0.02 * i:.2f}|>" for i in range(1501)]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.add_tokens(stamps)
    number = tokenizer.convert_tokens_to_ids
    end = number("<|endoftext|>")
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, num_mel_bins=8, max_target_positions=24, bos_token_id=end,
        eos_token_id=end, pad_token_id=end, decoder_start_token_id=number(marks[0]),
        suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WhisperForConditionalGeneration(config)
    settings = GenerationConfig.from_model_config(config)
    facts = {
        "max_length": 24, "no_timestamps_token_id": number("<|notimestamps|>"),
        "prev_sot_token_id": number("<|startofprev|>"), "is_multilingual": multilingual,
    }  # fmt: skip
    if multilingual:
        facts["lang_to_id"] = {m: number(m) for m in marks[1:3]}
        facts["task_to_id"] = {m: number(f"<|{m}|>") for m in ("translate", "transcribe")}
    for name, value in {**facts, "_from_model_config": False}.items():
        setattr(settings, name, value)
    model.generation_config = settings
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=8), tokenizer).save_pretrained(folder)
    return folder


def save_moonshine(folder: Path) -> Path:
    """Save a random Moonshine with some thousand weights and a tokenizer of letters."""
    import_torchaudio()
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        MoonshineConfig,
        MoonshineForConditionalGeneration,
        PreTrainedTokenizerFast,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Processor,
    )

    letters = ["<unk>", "<s>", "</s>", *"abcdefgh"]
    plain = Tokenizer(models.WordLevel({c: i for i, c in enumerate(letters)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        pad_token="</s>",
    )  # fmt: skip
    config = MoonshineConfig(
        vocab_size=len(letters), hidden_size=16, intermediate_size=16, encoder_num_hidden_layers=1,
        decoder_num_hidden_layers=1, encoder_num_attention_heads=2, decoder_num_attention_heads=2,
        decoder_start_token_id=1, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MoonshineForConditionalGeneration(config).save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    return folder
