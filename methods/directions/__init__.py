"""Methods that learn directions in a latent space."""
