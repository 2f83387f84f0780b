"""Methods that change an image as a prompt or a mask asks."""
