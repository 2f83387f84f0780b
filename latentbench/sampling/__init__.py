"""The one sampling loop, its inversion, and the algebra of latents."""
