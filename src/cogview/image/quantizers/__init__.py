"""From vectors to codes and back: the codebook, and the five ways in which it learns."""
