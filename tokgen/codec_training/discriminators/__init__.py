"""Discriminators of DAC and EnCodec.

- `ensemble` - all of DAC's discriminators as one module
- `period` - discriminator of waveforms folded at a period
- `bands` - discriminator of complex spectra in frequency bands
- `msstft` - EnCodec's discriminator of complex spectra at several resolutions
- `kinds` - make a new discriminator, or load a saved one
- `saved` - find a saved discriminator
- `layers` - the convolution that DAC's share
"""
