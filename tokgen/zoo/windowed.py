"""Base class of codecs that run in overlapping windows, so that memory does not grow."""

from __future__ import annotations

from torch import Tensor

from tokgen.codec.blocks import BlockDecoder, BlockEncoder
from tokgen.codec.spec import Side
from tokgen.codec.stages import StagedCodec
from tokgen.codec.windows import Reach, Windows, run_whole


class WindowedCodec(StagedCodec):
    """A codec whose networks have a finite receptive field.

    Attributes:
        window_frames: frames per window.
        whole_frames: shorter audio is encoded as one window.
        encoder_reach, decoder_reach: frames that a frame of codes, or of audio, depends on.
    """

    window_frames: int
    whole_frames: int = 0
    encoder_reach: Reach
    decoder_reach: Reach

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return run_whole([self._decoder_windows(None)], codes)

    def block_encoder(self, step: int | None = None) -> BlockEncoder:
        return BlockEncoder(self._encoder_windows(step))

    def block_decoder(self, step: int | None = None) -> BlockDecoder:
        return BlockDecoder(self._decoder_windows(step))

    def _encoder_windows(self, step: int | None, lengths: list[int] | None = None) -> Windows:
        def run(waveform: Tensor, first: int) -> Tensor:
            return self.quantize(self._encode_window(waveform, first, lengths))

        hop, size, whole = self.spec.hop_length, self.window_frames, self.whole_frames
        return Windows(run, self.encoder_reach, size=size, step=step, hop_in=hop, whole=whole)

    def _decoder_windows(self, step: int | None) -> Windows:
        def run(codes: Tensor, first: int) -> Tensor:
            return self.decode_latents(self.dequantize(codes))

        hop, size = self.spec.hop_length, self.window_frames
        return Windows(run, self.decoder_reach, size=size, step=step, hop_out=hop)

    def _encode_window(self, waveform: Tensor, first: int, lengths: list[int] | None) -> Tensor:
        """Return the latents of a window of a batch; `first` is the window's first frame."""
        return self.encode_latents(waveform)
