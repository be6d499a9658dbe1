"""Tables of images: reading them as programs write them, and what their labels mean."""
