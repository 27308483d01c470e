"""What a name may hold, in a source, in the image and in the Nix store."""

from __future__ import annotations

import re

from aikit_nix.base.errors import RefusedError

MODELS = "/models"
WHITE_OUT = ".wh."  # OCI image specification, layer.md, "Whiteouts"
_NAME_MAX = 255  # bytes of one path component, on every Linux file system
_PATH_MAX = 2048  # bytes of a name below /models: Linux takes 4096 for a path, of which others stand before and behind
_MOST_SHARDS = 1000
# llama.cpp finds the other shards from the first by this pattern
_FIRST_SHARD = re.compile(r"(.*)-00001-of-([0-9]{5})(\.gguf)", re.IGNORECASE)
_SHARD = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})(\.gguf)", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def scheme(text: str) -> str | None:
    """The scheme of a URL in lower case, with its colon; None for a path."""
    found = _SCHEME.match(text)
    return found.group().lower() if found else None


def name_problem(name: str) -> str | None:
    """Why a model's or a template's name cannot become a path below /models; None where it can."""
    if problem := too_long(name):
        return problem
    if bad := unprintable(name):
        return f"holds {bad}"
    if name.startswith("/"):
        return "begins with `/`: it is a path below /models"
    parts = name.removesuffix("/").split("/")
    if ".." in parts:
        return "holds `..`, which would leave /models"
    if "" in parts:
        return "has an empty part between two `/`"
    if any(part.startswith(WHITE_OUT) for part in parts):
        return f"has a part that begins with `{WHITE_OUT}`, by which layers remove files"
    long = next((part for part in parts if len(part.encode(errors="replace")) > _NAME_MAX - len(".tmpl")), None)
    return f"has a part of more than {_NAME_MAX - len('.tmpl')} bytes" if long else None


def too_long(path: str) -> str | None:
    """Why a path, or what it stands for, is too long; None where it is not."""
    if len(path) > _PATH_MAX or len(path.encode(errors="replace")) > _PATH_MAX:
        return f"has more than {_PATH_MAX} bytes"
    return None


def unprintable(text: str) -> str | None:
    """A word on the first control character or lone surrogate of a text; None where it has none."""
    if text.isascii() and text.isprintable():
        return None  # nearly all texts, and a file may hold thousands
    found = re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text)
    return f"the character U+{ord(found.group()):04X}" if found else None


def file_name(file: str) -> str:
    """The base name of a file in the image. Raises RefusedError where no file can be called so, or is one of so many."""
    if file in ("", ".", "..") or "/" in file:
        raise RefusedError(f"names no file: `{file}` is a folder")
    if bad := unprintable(file):
        raise RefusedError(f"has a file name that holds {bad}")
    if file.startswith(WHITE_OUT):
        raise RefusedError(f"has a file name that begins with `{WHITE_OUT}`, by which layers remove files")
    if len(file.encode()) > _NAME_MAX:
        raise RefusedError(f"has a file name of more than {_NAME_MAX} bytes")
    shards(first_shard(file))
    return file


def relative_path(path: str) -> str:
    """A path below /models that somebody else chose (a repository, an artifact). Raises RefusedError."""
    if problem := name_problem(path):
        raise RefusedError(f"has a file whose name {problem}")
    parts = path.split("/")
    if "." in parts or "\\" in path:
        raise RefusedError(f"has a file with an odd path: `{path}`")
    file_name(parts[-1])
    return path


def first_shard(name: str) -> str:
    """The first shard of a GGUF, given any of them; any other name stands for itself."""
    found = _SHARD.fullmatch(name)
    return f"{found[1]}-00001-of-{found[3]}{found[4]}" if found else name


def shards(name: str) -> list[str]:
    """All shards of a GGUF, given the first (`NAME-00001-of-00003.gguf`); any other name stands for itself.

    Raises RefusedError for an absurd number of them.
    """
    found = _FIRST_SHARD.fullmatch(name)
    if found is None:
        return [name]
    if not 1 <= int(found[2]) <= _MOST_SHARDS:
        raise RefusedError(f"claims to have {int(found[2])} parts")
    return [f"{found[1]}-{number:05}-of-{found[2]}{found[3]}" for number in range(1, int(found[2]) + 1)]
