"""aikit-nix: compile an aikitfile into a Nix flake that builds an OCI image."""

__version__ = "0.1.0"
