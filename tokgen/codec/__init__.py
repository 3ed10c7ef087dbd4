"""The interface that every codec implements, and code that works with any codec.

- `aligned` - encode on a given grid of frames, and keep the place of every sample
- `base` - `Codec` encodes audio to codes and decodes codes to audio
- `batches` - code utterances of unequal length
- `checks` - input checks, and the error for codecs that need whole utterances
- `chunks` - run networks on separate chunks, and join what they make
- `continuous` - `ContinuousCodec` encodes audio to latents, without a quantizer
- `depth` - variable depth: choose the levels of each frame, and count their bits
- `depth_files` - files with the depth of decoded audio, for reports
- `grid` - find where the frames of decoded audio begin
- `grid_segments` - find the parts of audio that a codec decoded
- `identity` - compare codecs by the hashes of their weights, and key results by what they depend on
- `long_audio` - code files of any length in bounded memory
- `piecewise` - code audio that comes piece by piece
- `packing` - codes as packed bits, and back
- `ragged` - codes of levels that have different frame rates, as codes [B, K, T]
- `spec` - a codec's numbers, and the results of encoding and quantizing
- `stable` - decode so that encoding the audio again gives the same codes
- `stages` - `StagedCodec` exposes encoder, quantizer and decoder for tuning
- `steps` - run causal networks on a fixed grid of chunks or frames
- `streaming` - `CodecStream` codes live audio
- `variable` - choose how many levels each frame keeps
- `windows` - run networks over a sequence that arrives in pieces
"""
