"""Recognisers of speech, for character and word error rates.

- `base` - the interface, and audio for recognisers
- `ctc` - wav2vec2 of transformers
- `embedded` - a small English model with weights in a wheel
- `seq2seq` - Whisper and Moonshine of transformers
- `names` - recognisers by name
"""
