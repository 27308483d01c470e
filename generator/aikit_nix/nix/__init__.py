"""What is said to Nix, and its store."""
