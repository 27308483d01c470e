"""aikit.lock: what it says, and what is no lock."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from aikit_nix.aikitfile.types import LayerPin, Pin
from aikit_nix.base.errors import AikitError
from aikit_nix.models import lock
from aikit_nix.models.entry import Entry, Origin
from aikit_nix.models.lock import Lock
from aikit_nix.sources import huggingface
from aikit_nix.sources.gguf import Facts, Shape
from support.locks import refused, write

SHA = "1" * 64
FULL = Pin(
    SHA,
    7,
    "2" * 64,
    LayerPin(f"sha256:{'3' * 64}", 4096 + 512 + 1024),
    "https://h.example/m",
    True,
    None,
    Facts(True, 4096, 1, Shape(1, 2, 3, 4, 5, 6, 7, 8, 9)),
)


def entry(name: str, pin: Pin = FULL) -> Entry:
    origin = Origin("huggingface", "ns/repo", "4" * 40, "mit", ("up/base",))
    pin = replace(pin, url=huggingface.url("ns/repo", "4" * 40, name))
    return Entry.of(
        name, f"https://huggingface.co/ns/repo/resolve/main/{quote(name)}", origin, ((f"/models/{name}", pin),)
    )


def test_what_is_written_is_read_again_in_one_order() -> None:
    entries = [entry("b"), entry("é"), entry("a", Pin(SHA, 0))]
    text = Lock.of("l", entries).to_json()
    assert lock.parse(text.encode(), "l") == Lock.of("l", entries)
    assert Lock.of("l", reversed(entries)).to_json() == text


WHOLE = """\
{
  "version": 1,
  "models": [
    {
      "name": "m",
      "source": "oci://h.example/a:1",
      "origin": {
        "kind": "oci",
        "repository": "h.example/a",
        "revision": "sha256:SHA4",
        "license": "mit",
        "baseModels": [
          "up/base"
        ]
      },
      "files": [
        {
          "path": "/models/a",
          "url": "https://h.example/v2/a/blobs/sha256:SHA1",
          "size": 7,
          "sha256": "SHA1"
        },
        {
          "path": "/models/b",
          "url": "https://h.example/v2/a/blobs/sha256:SHA5",
          "private": true,
          "member": "b",
          "size": 7,
          "sha256": "SHA1",
          "blake3": "SHA2",
          "layer": {
            "digest": "sha256:SHA3",
            "size": 5632
          },
          "gguf": {
            "chatTemplate": true,
            "contextLength": 4096,
            "pooling": 1,
            "memory": {
              "keys": 1,
              "values": 2,
              "window_keys": 4
            },
            "role": "projector"
          },
          "asIs": true
        }
      ]
    },
    {
      "name": "é",
      "source": "a/m.gguf",
      "origin": {
        "kind": "local"
      },
      "files": [
        {
          "path": "/models/m.gguf",
          "size": 0,
          "sha256": "SHA1",
          "gguf": {
            "chatTemplate": false
          }
        }
      ]
    }
  ]
}
"""


def test_a_lock_of_before_is_written_byte_for_byte(tmp_path: Path) -> None:
    """Whoever has one under version control sees no change in it."""
    text = re.sub(r"SHA(\d)", lambda found: found[1] * 64, WHOLE)
    read = lock.parse(text.encode(), "aikit.lock")
    assert read.to_json() == text
    assert lock.parse(text.replace('"size": 7', '"size": 7, "more": [1]').encode(), "aikit.lock") == read


def test_what_bytes_say_is_filled_in_where_they_are_the_same_bytes() -> None:
    bare = Lock.of("l", [entry("a", Pin(SHA, 7))])
    seen = Pin(SHA, 7, "2" * 64, FULL.layer, "https://elsewhere.example/m")
    (filled,) = bare.filled({"/models/a": seen}).entries.values()
    ((_, pin),) = filled.files
    assert (pin.blake3, pin.layer, pin.url) == (seen.blake3, seen.layer, huggingface.url("ns/repo", "4" * 40, "a"))
    assert bare.filled({"/models/a": Pin("0" * 64, 7, "2" * 64), "/models/b": seen}) == bare


GOOD = '{"path": "/models/m.gguf", "size": 1, "sha256": "%s"}' % ("1" * 64)
MODEL = '{"name": "m", "source": "m.gguf", "files": [%s]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 2, "models": []}', "is of version 2, from a newer aikit-nix: upgrade this one"),
        ('{"version": 1, "models": [\n<<<<<<< HEAD\n=======\n>>>>>>> other\n]}', "has conflict markers of a merge in it"),
        ('{"version": 1, "models": [', "is no aikit.lock"),
        ("", "is no aikit.lock"),
        ("[]", "is no aikit.lock"),
        ("null", "is no aikit.lock"),
        ("[" * 100_000, "is no aikit.lock"),
        ('{"version": true, "models": []}', "is no aikit.lock"),
        ('{"version": "1", "models": []}', "is no aikit.lock"),
        ('{"version": 1}', "is no aikit.lock (it lacks 'models')"),
        ('{"version": 1, "models": {"a": 1}}', "is no aikit.lock"),
        ('{"version": 1, "models": [%s]}' % (MODEL % ""), "has no files"),
        ('{"version": 1, "models": [%s]}' % (MODEL % f"{GOOD}, {GOOD}"), "has two files on one path"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace("/models/", "/etc/")), "is not below /models"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace("/models/", "/models/../")), "is no aikit.lock"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace('"size": 1', '"size": -1')), "is no size in bytes"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace('"size": 1', '"size": 1e99')), "is no size in bytes"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace('"size": 1', '"url": "file:///etc", "size": 1')), "is no URL"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace("1" * 64, "A" * 64)), "is not 64 lower-case hex digits"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace('"size": 1', '"gguf": 7, "size": 1')), "is no aikit.lock"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace('"size": 1', '"gguf": {"pooling": -1}, "size": 1')), "gguf.pooling is no number"),
        ('{"version": 1, "models": [%s]}' % (MODEL.replace('"m.gguf"', r'"\ud800"') % GOOD), "holds the character U+D800"),
        ('{"version": 1, "models": [%s]}' % (MODEL.replace('"files"', '"origin": {"kind": "local", "baseModels": "ns/repo"}, "files"') % GOOD), "is no list"),
    ],
)  # fmt: skip
def test_what_is_no_lock_is_said(text: str, message: str) -> None:
    with pytest.raises(AikitError) as refused:
        lock.parse(text.encode(), "aikit.lock")
    said = str(refused.value)
    assert message in said
    assert "aikit.lock" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("text", ['{"version": 2, "models": []}', "["])
def test_every_command_says_that_it_is_no_lock_and_leaves_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    write(tmp_path, ("m", "m.gguf"))
    (tmp_path / "aikit.lock").write_text(text)
    for command in (["lock"], ["lock", "--check"], ["fetch"], ["gen", "--elsewhere"], ["check"], ["explain"]):
        said = refused(tmp_path, *command)
        assert "aikit.lock is " in said, command
        assert len(said.splitlines()) <= 2
    assert (tmp_path / "aikit.lock").read_text() == text


@pytest.mark.parametrize(
    ("aikitfile", "name"),
    [
        ("aikitfile.yaml", "aikit.lock"),
        ("other.yaml", "other.lock"),
        ("flake.yaml", "flake.yaml.lock"),  # flake.lock is Nix'
        ("x.lock", "x.lock.lock"),
    ],
)
def test_a_lock_lies_beside_its_aikitfile(aikitfile: str, name: str) -> None:
    assert lock.beside(Path("a") / aikitfile) == Path("a") / name
