"""tokgen: generative modelling on neural-audio-codec tokens.

Letters in shapes, everywhere: B batch, K levels (codebooks), T frames, N samples,
D latent width, d width of a codebook row, L utterances.
"""

__version__ = "0.1.0"
