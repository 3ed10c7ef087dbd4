"""The masked transformer of Code Drift's downstream experiment (a small SoundStorm).

Bidirectional attention mixes the frames. The model predicts hidden codes from visible codes and a
conditioning.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.modelling.transformer import TokenTransformer
from tokgen.nn.dense import linear

__all__ = ["MaskedTransformer"]


class MaskedTransformer(TokenTransformer):
    """A transformer that predicts hidden codes from visible codes and a conditioning.

    Its arguments and attributes are those of `TokenTransformer`.
    """

    model_type = "tokgen_masked_transformer"
    title = "Masked transformer"

    def forward(
        self,
        tokens: Tensor,
        conditioning: Tensor | None = None,
        *,
        drop_conditioning: Tensor | None = None,
        lengths: Tensor | None = None,
        documents: Tensor | None = None,
        level: int | Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Compute the logits of the codes.

        Args:
            tokens: int64 [B, K, T], codes or MASK; [B, K + 1, T] with the depth as level 0 if the
                model has it.
            conditioning: float32 [B, C, T]; None hides it for the whole batch.
            drop_conditioning: bool [B], items whose conditioning is hidden.
            lengths: int64 [B], frames of each item; no frame attends to later ones.
            documents: int64 [B, T], the excerpt that each frame belongs to, for rows that hold
                several. Frames attend to their own excerpt only, and rotary positions start at 0
                in each excerpt.
            level: level of the logits, one for all items or int64 [B]; None returns all levels.
            positions: bool [B, T], positions whose logits are returned; needs a level. On a GPU
                the host waits for their number.
        Returns:
            [B, T, V] for one level, [n, V] for n `positions` of it, [B, K, T, V] for all levels.
            The depth has K logits if it is the one level of all items; otherwise -inf follows them.
            So it is with levels that have fewer than V codes.
        Raises:
            ValueError: wrong number of levels, wrong shape of the conditioning, or `positions`
                without a level.
        """
        if tokens.ndim != 3 or tokens.shape[1] != self.n_levels:
            raise ValueError(
                f"tokens of shape {tuple(tokens.shape)}: expected [B, {self.n_levels}, T]; "
                "fill missing levels with MASK"
            )
        x = self._embed(tokens) + self._condition(tokens, conditioning, drop_conditioning)
        attention: dict[str, Tensor] = {}
        frame = torch.arange(tokens.shape[-1], device=tokens.device)
        if documents is not None:
            same = documents[:, 1:] == documents[:, :-1]
            begins = frame.where(~F.pad(same, (1, 0)), 0).cummax(1).values
            attention["pos"] = frame - begins
            attention["attn_mask"] = (documents[:, :, None] == documents[:, None])[:, None]
        elif lengths is not None:
            attention["mask"] = frame < lengths[:, None]
        x = self.transformer(x, **attention)
        if level is None:
            if positions is not None:
                raise ValueError("positions without a level: pass the level that they are of")
            weight, bias = self._heads()
            return torch.einsum("btd,kvd->bktv", x, weight) + bias[:, None]
        if isinstance(level, int):
            x = x if positions is None else x[positions]
            if self.depth_level is not None and level == 0:
                return self.depth_level.logits(x)
            head = level - self.variable_depth
            size = self.size_of(head)
            return linear(x, self.head_weight[head][:size], self.head_bias[head][:size])
        if positions is not None:
            return self._heads_at(x[positions], level[:, None].expand_as(positions)[positions])
        weight, bias = self._heads()
        return x @ weight[level].mT + bias[level][:, None]

    def _heads_at(self, rows: Tensor, levels: Tensor) -> Tensor:
        """Logits [n, V] of rows [n, dim] by the heads of their levels, int64 [n]."""
        order = levels.argsort(stable=True)
        counts = levels.bincount(minlength=self.n_levels).tolist()
        heads = zip(rows[order].split(counts), *self._heads(), strict=True)
        return torch.cat([linear(*head) for head in heads])[order.argsort()]
