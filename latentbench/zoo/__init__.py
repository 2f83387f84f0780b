"""The embedded models and judges: recipes that train them, weights with cards, hash checks."""
