"""The lock: the same everywhere, asked by `check`, `gen` and `explain`, and what cannot be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.hugging_face import HuggingFace
from support.locks import digest, done, refused, run, write

pytestmark = pytest.mark.usefixtures("nix", "hub")


def test_the_lock_is_the_same_on_every_machine(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository().commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    done(tmp_path, "lock")
    text = (tmp_path / "aikit.lock").read_text()
    assert hub.url not in text
    assert str(tmp_path) not in text
    (tmp_path / "aikit.lock").unlink()
    done(tmp_path, "lock", env={"XDG_CACHE_HOME": str(tmp_path / "other")})
    assert (tmp_path / "aikit.lock").read_text() == text


def test_check_wants_neither_network_nor_models(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository().commit({"m.gguf": model})
    (tmp_path / "local.gguf").write_bytes(model)
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"), ("l", "local.gguf"))
    assert refused(tmp_path, "lock", "--check").count("is not in the lock: run `aikit-nix lock`") == 2
    done(tmp_path, "lock")
    (tmp_path / "local.gguf").unlink()
    before = (tmp_path / "aikit.lock").read_bytes()
    for args in (["lock", "--check"], ["check"], ["explain"], ["gen", "--elsewhere"], ["fmt", "--check"]):
        argv = ["unshare", "-rn", sys.executable, "-m", "aikit_nix.cli", *args]
        result = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0 or args[0] == "fmt", (args, result.stderr)
    assert (tmp_path / "aikit.lock").read_bytes() == before
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    assert "the lock has `l` from local.gguf, the aikitfile has not" in refused(tmp_path, "lock", "--check")
    assert "- l: no longer in the aikitfile" in done(tmp_path, "lock")
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"), sha256="1" * 64)
    assert "the lock has another sha256" in refused(tmp_path, "lock", "--check")
    said = refused(tmp_path, "gen", "--elsewhere")
    assert "1" * 64 in said
    assert digest(model) in said


def test_offline_pins_what_is_here(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "local.gguf").write_bytes(model)
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"), ("l", "local.gguf"))
    assert "`m` is not pinned yet, which needs the network" in refused(tmp_path, "lock", "--offline")
    assert not (tmp_path / "aikit.lock").exists()


def test_gen_names_all_that_is_not_pinned(tmp_path: Path) -> None:
    write(tmp_path, *((f"m{number}", f"huggingface://ns/repo/m{number}.gguf") for number in range(3)))
    for command in (["gen", "--elsewhere"], ["check"]):
        said = refused(tmp_path, *command)
        assert [f"`m{number}`" in said for number in range(3)] == [True] * 3
        assert said.count("pin all 3 with `aikit-nix lock`") == 1


def test_explain_says_where_it_is_from(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    card = {"license": "mit", "base_model": ["upstream/base"]}
    commit = hub.repository(card=card).commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    done(tmp_path, "lock")
    result = run(tmp_path, "explain")
    assert f"origin  ns/repo at {commit}" in result.stdout
    assert "licence mit" in result.stdout
    assert "made of upstream/base" in result.stdout
    assert "gguf    4096 tokens, a chat template" in result.stdout


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
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace('"size": 1', '"gguf": {"pooling": -1}, "size": 1')), "are no numbers"),
    ],
)  # fmt: skip
def test_a_lock_that_cannot_be_used(tmp_path: Path, model: bytes, text: str, message: str) -> None:
    (tmp_path / "m.gguf").write_bytes(model)
    write(tmp_path, ("m", "m.gguf"))
    (tmp_path / "aikit.lock").write_text(text)
    for command in (["lock"], ["lock", "--check"], ["fetch"], ["gen", "--elsewhere"], ["check"], ["explain"]):
        said = refused(tmp_path, *command)
        assert message in said, command
        assert "aikit.lock" in said
        assert len(said.splitlines()) <= 2
    assert (tmp_path / "aikit.lock").read_text() == text
