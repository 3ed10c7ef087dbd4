"""Modules that cannot simply be imported by name; the server of `makers.processes` imports them."""

from tokgen.audio.torchaudio_shim import import_torchaudio

import_torchaudio()
