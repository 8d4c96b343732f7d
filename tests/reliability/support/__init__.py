"""What all campaigns share: the arena, running rbuild, reading images, a registry."""
