"""The Debian package set: its lock, the signed index, archives, mirrors."""
