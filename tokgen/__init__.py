"""tokgen: generative modelling on neural-audio-codec tokens.

Letters in shapes:
    B: batch
    K: levels (codebooks)
    T: frames
    N: samples
    D: width of the latents
    d: width of one codebook entry
    L: utterances
"""

__version__ = "0.1.0"
