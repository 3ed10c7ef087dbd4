"""Generation of codes and audio with token models.

- `settings` - settings of tasks and of sampling
- `sampling` - decode codes from a model: MaskGIT in each level, Gumbel noise, guidance
- `autoregressive` - decode codes step by step, with a delay pattern
- `inputs` - check what the samplers get, and apply guidance
- `nucleus` - draw codes from the most likely ones
- `windows` - generate long utterances in windows that overlap
- `prompts` - masks of the codes to keep, for continuation and infilling
- `clips` - generate a list of utterances: codes and audio
- `request` - a request: the audio that is given, and the codes to keep of it
- `generators` - find the generator beside a codec
- `generate` - generate one utterance: like audio, after a prompt, in a gap, or as a variation
- `outputs` - plan and check the files that generation writes
- `files` - generate utterances and write them as audio files
- `speech` - speech from text alone
- `corpora` - check the corpora of a generator, and tokenize them
- `training_tokens` - open the tokens to train a generator on, and its test utterances
- `held_out` - choose test utterances and generate them
"""
