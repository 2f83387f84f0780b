"""Methods that find the latent code of a real image."""
