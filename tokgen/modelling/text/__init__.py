"""Text as the conditioning of token models: which symbol sounds in which frame, and how.

- `symbols` - characters or phonemes of a text
- `alignment` - monotonic alignment of symbols and frames
- `layers` - convolutions over symbols and frames
- `model` - the text model: durations and features of frames from text
- `settings` - size of a text model
"""
