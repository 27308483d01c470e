"""The text of an aikitfile, read into types that remember where each value stood."""
