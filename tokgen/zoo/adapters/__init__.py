"""Codecs of other libraries.

- `audiocraft` - EnCodec as audiocraft and VoiceCraft publish it, run by transformers
- `carried` - causal layers of EnCodec and Mimi, piece by piece
- `continuous` - VibeVoice's and Pocket TTS's tokenizers, run by transformers
- `dac` - DAC, run by transformers
- `dac_cpu` - faster layers for DAC on a CPU
- `dac_variable` - DAC with an importance network
- `dac_training` - weight norm and first weights of DAC in training
- `encodec` - EnCodec, run by transformers
- `encodec_variable` - EnCodec with an importance network
- `ffmpeg` - MP3 and Opus, run by FFmpeg; their encoder delays
- `higgs` - the tokenizer of Higgs Audio v2, run by transformers
- `focalcodec` - FocalCodec, run by its own package
- `mimi` - Mimi, run by transformers
- `snac` - SNAC, run by its own package
- `speechtokenizer` - SpeechTokenizer, run by its own package
- `wavtokenizer` - WavTokenizer, run by transformers
- `xcodec` - X-Codec, run by transformers
- `xcodec2` - X-Codec2 and NeuCodec, run by transformers
"""
