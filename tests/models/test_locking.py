"""`aikit-nix lock`: the same everywhere, kept while it fits; and on a machine where something is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aikit_nix.aikitfile.types import Aikitfile, Pin
from aikit_nix.models import locking
from aikit_nix.models import project as projects
from support.file_server import FileServer
from support.hugging_face import HuggingFace
from support.locks import digest, done, in_store, locked, refused, write

pytestmark = pytest.mark.usefixtures("nix", "hub")


def test_a_proxy_that_is_down(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository().commit({"m.gguf": model})
    write(tmp_path, ("my-model", "huggingface://ns/repo/m.gguf"))
    proxies = {
        "HF_ENDPOINT": "http://hub.invalid",
        "http_proxy": "http://me:my-Password@127.0.0.1:1",
        "no_proxy": "",
        "NO_PROXY": "",
    }
    said = refused(tmp_path, "lock", env=proxies)
    assert "through the proxy http://***@127.0.0.1:1" in said
    assert "my-model" in said
    assert "my-Password" not in said


def test_a_web_server_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, ("m", "http://127.0.0.1:1/m.gguf"), ("n", "http://nowhere.invalid/n.gguf"))
    said = refused(tmp_path, "lock")
    assert "aikitfile.yaml:3:" in said
    assert "aikitfile.yaml:4:" in said


def test_without_nix(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    """What needs no store works, the rest says what is missing."""
    hub.repository().commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    env = {"PATH": str(tmp_path)}
    done(tmp_path, "lock", env=env)
    done(tmp_path, "gen", "--elsewhere", env=env)
    assert "`nix` is missing: install Debian's nix-bin" in refused(tmp_path, "fetch", env=env)


def test_a_store_that_is_not_there(tmp_path: Path, files: FileServer, model: bytes) -> None:
    files.files["/m.gguf"] = model
    write(tmp_path, ("m", f"{files.url}/m.gguf"))
    said = refused(tmp_path, "lock", env={"NIX_REMOTE": "unix:///nonexistent/socket"})
    assert "nix" in said
    assert not (tmp_path / "aikit.lock").exists()
    # What was downloaded is kept for the next time
    done(tmp_path, "lock")
    assert in_store("m.gguf", model)


def test_a_full_disk(tmp_path: Path, files: FileServer, model: bytes) -> None:
    files.files["/m.gguf"] = model
    write(tmp_path, ("m", f"{files.url}/m.gguf"))
    cache = tmp_path / "cache"
    cache.mkdir()
    script = f'mount -t tmpfs -o size=100k none "{cache}" && exec "{sys.executable}" -m aikit_nix.cli lock'
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result.stderr
    assert "free, and 260.4 kB are to come: make room" in result.stderr
    assert not (tmp_path / "aikit.lock").exists()


def test_a_lock_that_cannot_be_written(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(model)
    write(tmp_path, ("m", "m.gguf"))
    (tmp_path / "aikit.lock").mkdir()
    assert "it is a folder" in refused(tmp_path, "lock")
    (tmp_path / "aikit.lock").rmdir()
    (tmp_path / "aikit.lock").symlink_to("/proc/none")
    assert "aikit.lock" in refused(tmp_path, "lock")


def test_every_local_model_that_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path, ("a", "a.gguf"), ("b", "b.gguf"))
    said = refused(tmp_path, "lock")
    assert "aikitfile.yaml:3:" in said
    assert "aikitfile.yaml:4:" in said


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


def test_what_was_locked_while_models_came_stays(
    tmp_path: Path, hub: HuggingFace, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repository().commit({"m.gguf": model, "n.gguf": model + b"n"})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    done(tmp_path, "lock")
    project = projects.read(tmp_path / "aikitfile.yaml")

    def slow(_: Aikitfile, __: int) -> dict[str, Pin]:
        write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"), ("n", "huggingface://ns/repo/n.gguf"))
        done(tmp_path, "lock")
        return {"/models/m.gguf": Pin(digest(model), len(model), "b" * 64)}

    monkeypatch.setattr("aikit_nix.models.fetch.bring_models", slow)
    assert locking.bring(projects.pin(project)[0], project.lock, 1) == (1, True)
    assert [entry["name"] for entry in locked(tmp_path)] == ["m", "n"]
    assert locked(tmp_path)[0]["files"][0]["blake3"] == "b" * 64
