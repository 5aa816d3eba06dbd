"""Vector quantizers: a codebook with five training methods."""
