"""What is said of an image, and whether it is true."""
