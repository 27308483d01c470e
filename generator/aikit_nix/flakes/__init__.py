"""From a project to a flake on the disk, and back."""
