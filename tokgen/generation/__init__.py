"""Generation of codes and audio with token models.

- `settings` - settings of tasks and of sampling
- `sampling` - decode codes from a model: MaskGIT in each level, Gumbel noise, guidance
- `autoregressive` - decode codes step by step, with a delay pattern
- `nucleus` - draw codes from the most likely ones
- `prompts` - masks of the codes to keep, for continuation and infilling
- `clips` - generate a list of utterances: codes and audio
- `generate` - generate one utterance: like audio, after a prompt, or in a gap
- `speech` - speech from text alone
- `held_out` - choose test utterances and generate them
"""
