"""Files and folders beside the aikitfile, and `lock` with them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from aikit_nix.nix import store
from aikit_nix.sources import RefusedError, local
from support import tiny_gguf
from support.command import aikit_nix
from support.hugging_face import HuggingFace
from support.locks import done, locked, only_file, refused, write

pytestmark = pytest.mark.usefixtures("nix", "hub")


def test_local_files_and_folders(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(model)
    (tmp_path / "exl2/sub").mkdir(parents=True)
    (tmp_path / "exl2/config.json").write_text("{}")
    (tmp_path / "exl2/sub/output.safetensors").write_bytes(b"weights")
    write(tmp_path, ("m", "m.gguf"), ("exl2", "exl2"))
    said = done(tmp_path, "lock", "--offline")
    assert "/models/exl2/config.json, 2 B" in said
    paths = {entry["name"]: [file["path"] for file in entry["files"]] for entry in locked(tmp_path)}
    assert paths == {
        "m": ["/models/m.gguf"],
        "exl2": ["/models/exl2/config.json", "/models/exl2/sub/output.safetensors"],
    }
    done(tmp_path, "gen", "--elsewhere")
    plan = (tmp_path / "flake/aikit/plan.json").read_bytes()
    done(tmp_path, "explain")
    assert "no mistakes found" in done(tmp_path, "check")

    (tmp_path / "exl2/new.json").write_text("{}")
    assert "/models/exl2/new.json is not in the lock" in refused(tmp_path, "gen", "--elsewhere")
    (tmp_path / "exl2/new.json").unlink()
    (tmp_path / "exl2/config.json").write_text("[]")
    assert "the lock says" in refused(tmp_path, "gen", "--elsewhere")
    assert "~ exl2: 2 files" in done(tmp_path, "lock")
    (tmp_path / "exl2/config.json").write_text("{}")
    done(tmp_path, "lock")

    # Another machine, which has not all the files: the lock knows them
    (tmp_path / "exl2/config.json").unlink()
    (tmp_path / "m.gguf").unlink()
    done(tmp_path, "gen", "--elsewhere")
    assert (tmp_path / "flake/aikit/plan.json").read_bytes() == plan


def test_the_plan_is_the_same_with_and_without_the_file(tmp_path: Path) -> None:
    """A GGUF without a chat template gets one in the image: the lock says it, not the file."""
    tiny_gguf.make(tmp_path / "base.gguf", name=os.urandom(8).hex(), chat_template=None)
    write(tmp_path, ("base", "base.gguf"))
    done(tmp_path, "lock")
    assert only_file(tmp_path)["gguf"] == tiny_gguf.FACTS | {"chatTemplate": False}
    plans = []
    for _ in range(2):
        done(tmp_path, "gen", "--packages", "debian", "--elsewhere")
        plans.append((tmp_path / "flake/aikit/plan.json").read_text())
        (tmp_path / "base.gguf").unlink(missing_ok=True)
    assert plans[0] == plans[1]
    assert "chat-template-file" in plans[0]


def test_the_plan_knows_the_head_of_a_remote_file(tmp_path: Path, hub: HuggingFace) -> None:
    """Without a chat template in the GGUF, llama-server is told one; and no more context than it was trained for."""
    made = tiny_gguf.make(tmp_path / "made.gguf", name=os.urandom(8).hex(), chat_template=None)
    hub.repository().commit({"base.gguf": made.read_bytes()})
    config = "config: |\n  - name: base\n    context_size: 9999\n    parameters: {model: base.gguf}\n"
    write(tmp_path, ("base", "huggingface://ns/repo/base.gguf"), more=config)
    done(tmp_path, "lock")
    done(tmp_path, "gen", "--packages", "debian", "--elsewhere")
    assert "chat-template-file" in (tmp_path / "flake/aikit/plan.json").read_text()
    said = done(tmp_path, "check")
    assert "context_size 9999 is more than the 4096 tokens that base.gguf was trained for" in said


def test_local_shards(tmp_path: Path, model: bytes) -> None:
    names = [f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    (tmp_path / names[0]).write_bytes(model)
    write(tmp_path, ("m", names[0]))
    assert f"does not exist: put the file there ({names[1]}" in refused(tmp_path, "lock")
    (tmp_path / names[1]).write_bytes(model + b"2")
    done(tmp_path, "lock")
    assert [file["path"] for file in locked(tmp_path)[0]["files"]] == [f"/models/{name}" for name in names]
    done(tmp_path, "gen", "--elsewhere")
    write(tmp_path, ("m", names[1]))
    assert f"name the first, {names[0]}" in refused(tmp_path, "lock")


# --- Files and folders


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/etc/passwd", "absolute path"),
        ("~/m.gguf", "begins with `~`"),
        ("a/../../m.gguf", "leaves the aikitfile's folder"),
        ("./", "own folder"),
        ("a/" * 1100, "more than 2048 bytes"),
        ("m" * 256, "more than 255 bytes"),
        ("m" * 256 + "/m.gguf", "more than 255 bytes"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(text: str, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        local.read(text)


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    for name in ("m/b/c.bin", "m/a.json", "m/.git/config", "m/.hidden", "elsewhere/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "m/link").symlink_to("../elsewhere")  # a folder, which is not followed
    source = local.read("./m/")
    found = local.files(source, tmp_path, "/models/m")
    assert found == [("/models/m/a.json", tmp_path / "m/a.json"), ("/models/m/b/c.bin", tmp_path / "m/b/c.bin")]
    assert [local.place(source, tmp_path, "/models/m", path) for path, _ in found] == [file for _, file in found]


def test_a_shard_lies_beside_the_first(tmp_path: Path) -> None:
    names = [f"d/m-0000{number}-of-00002.gguf" for number in (1, 2)]
    (tmp_path / "d").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    source = local.read(names[0])
    found = local.files(source, tmp_path, "/models/m-00001-of-00002.gguf")
    assert found == [(f"/models/{name[2:]}", tmp_path / name) for name in names]
    assert [local.place(source, tmp_path, found[0][0], path) for path, _ in found] == [file for _, file in found]


@pytest.mark.parametrize("what", ["pipe", "broken link", "too many", "name", "empty"])
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    match what:
        case "pipe":
            os.mkfifo(folder / "x")
        case "broken link":
            (folder / "x").symlink_to("nothing")
        case "too many":
            for number in range(1001):
                (folder / str(number)).touch()
        case "name":
            (folder / "a\nb").touch()
    message = {
        "pipe": "is no regular file",
        "broken link": "its target is missing",
        "too many": "more than 1000 files",
        "name": r"U\+000A",
        "empty": "is an empty folder",
    }
    with pytest.raises(RefusedError, match=message[what]):
        local.files(local.read("m"), tmp_path, "/models/m")


def test_a_folder_that_cannot_be_read_is_not_taken_for_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m/part").mkdir(parents=True)
    (tmp_path / "m/a").touch()
    (tmp_path / "m/part/b").touch()
    (tmp_path / "m/part").chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    if user == 0:  # who may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(RefusedError, match="cannot be read: permission denied"):
            local.files(local.read("m"), Path(), "/models/m")
        with pytest.raises(RefusedError, match="cannot be read: permission denied"):
            local.files(local.read("m/part/b"), Path(), "/models/b")
    finally:
        os.seteuid(user)
        (tmp_path / "m/part").chmod(0o700)


@pytest.mark.parametrize("link", ["m.gguf", "sub", "folder/m.gguf"])
@pytest.mark.usefixtures("nix")
def test_a_link_out_of_the_folder_publishes_nothing_unseen(tmp_path: Path, link: str) -> None:
    """Whoever wrote the aikitfile may have made the link: to a key, or to a file that only this machine has."""
    folder, other = tmp_path / "project", tmp_path / "elsewhere"
    other.mkdir()
    secret = other / "m.gguf"
    secret.write_bytes(os.urandom(16))  # in no store yet
    (folder / link).parent.mkdir(parents=True)
    (folder / link).symlink_to(other if link == "sub" else secret)
    source = {"sub": "sub/m.gguf", "folder/m.gguf": "folder"}.get(link, link)
    aikitfile = folder / "aikitfile.yaml"
    aikitfile.write_text(f"apiVersion: v1alpha1\nmodels: [{{name: m, source: {source}}}]\n")
    path = store.store_path("m.gguf", hashlib.sha256(secret.read_bytes()).hexdigest())

    secret.chmod(0o640)
    gen = ("gen", "--packages", "debian")
    for command in (("check",), gen, ("lock",)):
        done = aikit_nix(*command, cwd=folder)
        assert (done.returncode, f"leads to {secret}, which not everybody may read" in done.stderr) == (1, True), done
    assert not path.exists()

    secret.chmod(0o644)
    for command in (("check",), ("lock",), gen):
        done = aikit_nix(*command, cwd=folder)
        warned = f"warning: aikitfile.yaml:2:28: the source leads to {secret}: " in done.stderr
        # the lock knows the bytes: they are what somebody meant
        assert (done.returncode, warned) == (0, command != gen), done
    assert path.exists()


def test_a_link_within_the_folder_or_to_pinned_bytes_is_nothing_to_say(tmp_path: Path) -> None:
    (tmp_path / "project/sub").mkdir(parents=True)
    inner, outer = tmp_path / "project/sub/x", tmp_path / "y"
    for file in (inner, outer):
        file.write_bytes(b"x")
        file.chmod(0o600)
    (tmp_path / "project/a").symlink_to("sub/x")
    (tmp_path / "project/b").symlink_to(outer)
    digest = hashlib.sha256(b"x").hexdigest()
    (tmp_path / "project/aikitfile.yaml").write_text(
        f"apiVersion: v1alpha1\nmodels: [{{name: a, source: a}}, {{name: b, source: b, sha256: '{digest}'}}]\n"
    )
    done = aikit_nix("check", cwd=tmp_path / "project")
    assert (done.returncode, "leads to" in done.stderr) == (0, False), done
