"""Methods that learn a subject from a few images, and show it again."""
