"""llama.cpp's own server: LocalAI's model configs in its words."""
