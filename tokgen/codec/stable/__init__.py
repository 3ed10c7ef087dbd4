"""Decode so that encoding the audio again gives the same codes.

- `decoding` - decode codes to audio from which they come back, window by window
- `search` - change a segment of audio a little, until its codes are the wanted ones
- `settings` - settings of the search, and what it reached
- `tally` - what was reached over audio of any length
- `targets` - how far the codes of a segment are from the wanted ones
- `transports` - changes of audio on its way: rounding, gain, resampling, MP3, Opus
"""
