"""An autoregressive transformer of codes with the delay pattern of MusicGen (Copet et al. 2023).

    logits = model(codes, conditioning)          # [B, K, T, V]; those of a code depend on codes
                                                 # of earlier steps only
    state = None                                 # the same, step by step
    for step in range(n_steps):
        logits, state = model.step(tokens, conditioning_of_step, state)

In step s, level k has the code of frame s - k. So all levels of a step are predicted at once, and
the code of a level knows those of lower levels in the same frame. T frames take T + K - 1 steps, as
`tokgen.tokens.layouts.delay` lays them out. A level that has no code in a step has MASK.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from x_transformers import Decoder

from tokgen.modelling.transformer import TokenTransformer
from tokgen.nn.dense import linear
from tokgen.tokens.layouts import delay

__all__ = ["DelayTransformer"]


class DelayTransformer(TokenTransformer):
    """A transformer that predicts the codes of a step from those of earlier steps.

    The conditioning of a frame is added in the step of its coarsest code. The arguments and
    attributes are those of `TokenTransformer`; a rate is refused.
    """

    model_type = "tokgen_delay_transformer"
    layers = Decoder
    title = "Autoregressive transformer"
    takes_rate = False

    def forward(
        self,
        codes: Tensor,
        conditioning: Tensor | None = None,
        *,
        drop_conditioning: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Compute the logits of all codes.

        Args:
            codes: int64 [B, K, T].
            conditioning: float32 [B, C, T]; None hides it for the whole batch.
            drop_conditioning: bool [B], items whose conditioning is hidden.
            lengths: int64 [B], frames of each item; None means T.
        Returns:
            [B, K, T, V].
        Raises:
            ValueError: wrong number of levels, or wrong shape of the conditioning.
        """
        if codes.ndim != 3 or codes.shape[1] != self.n_codebooks:
            raise ValueError(
                f"codes of shape {tuple(codes.shape)}: expected [B, {self.n_codebooks}, T]"
            )
        n_items, n_levels, n_frames = codes.shape
        if lengths is None:
            lengths = torch.full((n_items,), n_frames, device=codes.device)
        steps = delay(codes, self.mask_id, lengths=lengths, check=False)
        tokens = F.pad(steps[..., :-1], (1, 0), value=self.mask_id)
        x = self._embed(tokens) + self._condition_steps(
            codes, conditioning, drop_conditioning, lengths
        )
        x = self.transformer(x)
        weight, bias = self._heads()
        logits = [linear(x[:, k : k + n_frames], weight[k], bias[k]) for k in range(n_levels)]
        return torch.stack(logits, 1)

    def step(
        self,
        tokens: Tensor,
        conditioning: Tensor | None,
        state: Any,
        *,
        drop_conditioning: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Compute the logits of one step, with the keys and values of earlier steps.

        Args:
            tokens: int64 [B, K], the codes of the step before, or MASK.
            conditioning: float32 [B, C] of this step's frame; None hides it. Hide it after the last
                frame.
            state: what the step before returned; None in the first.
            drop_conditioning: bool [B], items whose conditioning is hidden in this step.
        Returns:
            logits [B, K, V] of the step's codes, and the state for the next step.
        """
        tokens = tokens[..., None]
        shown = None if conditioning is None else conditioning[..., None]
        x = self._embed(tokens) + self._condition(tokens, shown, drop_conditioning)
        x, state = self.transformer(x, cache=state, return_hiddens=True)
        weight, bias = self._heads()
        logits = [linear(x[:, -1], weight[k], bias[k]) for k in range(self.n_codebooks)]
        return torch.stack(logits, 1), state

    def _condition_steps(
        self, codes: Tensor, conditioning: Tensor | None, drop: Tensor | None, lengths: Tensor
    ) -> Tensor | float:
        """Embed the conditioning as [B, T + K - 1, dim]; steps past an item's end hide it."""
        out = self._condition(codes, conditioning, drop)
        if conditioning is None or isinstance(out, float):
            return out
        hidden = torch.arange(out.shape[1], device=out.device) >= lengths[:, None]
        out = torch.where(hidden[..., None], self.no_conditioning.to(out.dtype), out)
        rest = self.no_conditioning.to(out.dtype).expand(len(out), self.n_codebooks - 1, -1)
        return torch.cat([out, rest], 1)
