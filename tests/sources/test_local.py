"""`aikit-nix lock` with files and folders beside the aikitfile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import tiny_gguf
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
    plan = (tmp_path / "aikit/plan.json").read_bytes()
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
    assert (tmp_path / "aikit/plan.json").read_bytes() == plan


def test_the_plan_is_the_same_with_and_without_the_file(tmp_path: Path) -> None:
    """A GGUF without a chat template gets one in the image: the lock says it, not the file."""
    tiny_gguf.make(tmp_path / "base.gguf", name=os.urandom(8).hex(), chat_template=None)
    write(tmp_path, ("base", "base.gguf"))
    done(tmp_path, "lock")
    assert only_file(tmp_path)["gguf"] == {"chatTemplate": False, "contextLength": 4096}
    plans = []
    for _ in range(2):
        done(tmp_path, "gen", "--packages", "debian", "--elsewhere")
        plans.append((tmp_path / "aikit/plan.json").read_text())
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
    assert "chat-template-file" in (tmp_path / "aikit/plan.json").read_text()
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
