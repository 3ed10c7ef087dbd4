"""DAC's discriminators.

- `ensemble` - all discriminators as one module
- `period` - discriminator of waveforms folded at a period
- `bands` - discriminator of complex spectra in frequency bands
- `layers` - the convolution that they share
"""
