"""All that reads or moves images: layouts, layers, registries."""
