"""What metrics look at images through: published networks, judges, text-image pairs."""
