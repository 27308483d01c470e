"""Images: the layers that they are made of."""
