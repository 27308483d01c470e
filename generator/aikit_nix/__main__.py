"""`python -m aikit_nix`."""

from aikit_nix.cli import main

main()
