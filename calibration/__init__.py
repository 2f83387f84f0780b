"""Do intervals and tests hold what they promise? Simulations of laws whose truth is known."""
