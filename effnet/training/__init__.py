"""From labeled images to a model."""
