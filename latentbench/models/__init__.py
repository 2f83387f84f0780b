"""Model families: one file each, built from components, never from a method's pipeline."""
