"""Methods that draw a path between two latents."""
