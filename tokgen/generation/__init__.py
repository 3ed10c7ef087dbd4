"""Generation of codes and audio with masked models.

- `sampling` - decode codes from a model: MaskGIT in each level, Gumbel noise, guidance
- `prompts` - masks of the codes to keep, for continuation and infilling
- `generate` - generate utterances: codes and audio
- `held_out` - choose test utterances and generate them
"""
