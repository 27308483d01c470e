"""What is in an image, for people: layers with what they hold, models, how it is run; as text, JSON or a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from aikit_nix.base.console import size
from aikit_nix.image.layout import MODELS_LABEL, Image

_BAR = 24  # characters


def to_json(image: Image) -> dict[str, Any]:
    """Everything that `text` says, for programs."""
    return {
        "names": list(image.names),
        "digest": image.digest,
        "config": image.config_digest,
        "platform": platform(image),
        "size": image.size,
        "models": [{"path": path, "sha256": sha256} for path, sha256 in image.models().items()],
        "layers": [
            {
                "digest": layer.digest,
                "diffId": layer.diff_id,
                "size": layer.size,
                "mediaType": layer.media_type,
                "model": layer.model,
                "contents": layer.contents,
            }
            for layer in image.layers
        ],
        "run": dict(image.run),
    }


def platform(image: Image) -> str:
    """As `linux/amd64`."""
    parts = (image.config.get(key) for key in ("os", "architecture", "variant"))
    return "/".join(str(part) for part in parts if part)


def text(image: Image) -> Iterator[str]:
    """Lines."""
    if image.names:
        yield f"image       {', '.join(image.names)}"
    yield f"digest      {image.digest or '(a docker-archive has none)'}"
    yield f"config      {image.config_digest}"
    yield f"platform    {platform(image)}"
    yield f"size        {size(image.size)} in {len(image.layers)} layers"
    for key in ("Entrypoint", "Cmd", "User", "WorkingDir"):
        if value := image.run.get(key):
            yield f"{key.lower():<11} {json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value}"
    for key, heading in (("Env", "environment"), ("Labels", "labels")):
        value = image.run.get(key) or ()
        lines = [f"{name}={content}" for name, content in value.items()] if isinstance(value, dict) else list(value)
        yield from _block(heading, sorted(str(line) for line in lines if not str(line).startswith(MODELS_LABEL)))
    yield from _block("models", [f"{path}  sha256 {sha256}" for path, sha256 in image.models().items()])
    yield "layers, the lowest first"
    largest = max((layer.size for layer in image.layers), default=0) or 1
    for layer in image.layers:
        bar = "█" * max(round(_BAR * layer.size / largest), 0)
        yield f"  {layer.digest[7:19]}  {size(layer.size):>9}  {bar or '▏':<{_BAR}}  {_short(layer.contents)}"


def _block(heading: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield heading
        yield from (f"  {line}" for line in lines)


def _short(words: str, most: int = 100) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"


def svg(image: Image) -> str:
    """The layers as a stack, the lowest at the bottom; as high as they are large, but never too thin to be read."""
    from html import escape

    total = image.size or 1
    y, boxes = 10.0, []
    for layer in reversed(image.layers):
        height = max(18.0, 400 * layer.size / total)
        colour = "#c8ddf0" if layer.model else "#e6e6e6"
        label = f"{size(layer.size)}   {layer.digest[7:19]}   {_short(layer.contents, 70)}"
        boxes.append(
            f'<rect x="10" y="{y:.1f}" width="780" height="{height:.1f}" fill="{colour}" stroke="white"/>'
            f'<text x="18" y="{y + height / 2 + 4:.1f}">{escape(_xml(label))}</text>'
        )
        y += height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="800" height="{y + 10:.0f}" '
        f'font-family="sans-serif" font-size="12">\n<title>{escape(_xml(image.name or image.config_digest))}</title>\n'
        + "\n".join(boxes)
        + "\n</svg>\n"
    )


def _xml(words: str) -> str:
    """XML allows no control characters, however they are written."""
    return "".join(c if c.isprintable() else "�" for c in words)
