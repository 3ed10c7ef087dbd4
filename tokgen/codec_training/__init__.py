"""Training a codec: reconstruction losses, discriminators, quantizer guards."""
