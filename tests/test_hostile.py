"""Other people's input: what it may cost, and what of it may reach a terminal."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from support.command import aikit_nix

HEAD = "apiVersion: v1alpha1\n"
# Memory in bytes and CPU time in seconds that no input may exceed; each of these took many times as much.
LIMITS = (1 << 30, 20)


def template(text: str) -> str:
    return f"{HEAD}models: [{{name: m, source: m.gguf, promptTemplates: [{{name: m, template: '{text}'}}]}}]\n"


@pytest.mark.parametrize(
    "text",
    [
        template("{{!" * 200_000),
        template("{{/*" * 200_000),
        template("{{/*" * 200_000 + "*/"),
        template("{{`" * 200_001),
        template("{{ a {{ " * 200_000),
        template('{{ "x{{ "' * 200_000),
        f"{HEAD}models: [{{name: '{'a/' * 80_000}m', source: https://h.example/m.gguf, sha256: '{'1' * 64}'}}]\n",
        f"{HEAD}models: [{{name: m, source: '{'a/' * 80_000}m.gguf'}}]\n",
        # one text of 4 MB that 10,000 templates share
        f"{HEAD}config: &a '{'{{x}}' * 800_000}'\nmodels:\n- name: m\n  source: m.gguf\n  promptTemplates:\n"
        + "".join(f"  - {{name: t{n}, template: *a}}\n" for n in range(10_000)),
    ],
    ids=["character", "comments", "open-comment", "raw", "nested", "quotes", "name", "source", "aliases"],
)
def test_an_aikitfile_costs_no_more_than_its_size_allows(tmp_path: Path, text: str) -> None:
    (tmp_path / "aikitfile.yaml").write_text(text)
    done = aikit_nix("check", cwd=tmp_path, limits=LIMITS)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 200_000


def test_a_gguf_costs_no_more_than_its_size_allows(tmp_path: Path) -> None:
    (tmp_path / "aikitfile.yaml").write_text(f"{HEAD}models: [{{name: m, source: m.gguf}}]\n")
    with (tmp_path / "m.gguf").open("wb") as stream:
        # one key, an array of 2^63 texts, and zeros (a sparse file): each text is empty
        stream.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"a", 9, 8, 2**63))
        stream.truncate(1 << 30)
    done = aikit_nix("check", cwd=tmp_path, limits=LIMITS)
    assert (done.returncode, "claims 9223372036854775808" in done.stderr) == (1, True)


def test_only_regular_files_are_read_and_no_more_than_an_aikitfile_has(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(4 << 30)
    os.mkfifo(tmp_path / "pipe")
    url = f"{{name: m, source: https://h.example/m, sha256: '{'1' * 64}'}}"
    (tmp_path / "ok.yaml").write_text(f"{HEAD}models: [{url}]\n")
    endless = subprocess.Popen(["sh", "-c", "exec cat /dev/zero > pipe"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        for command in ("check", "explain", "fmt", "gen"):
            for file, says in (
                ("pipe", "cannot read pipe: it is a pipe"),
                ("/dev/zero", "cannot read /dev/zero: it is a device"),
                ("huge", "cannot read huge: it has more than 16777216 bytes"),
            ):
                done = aikit_nix(command, file, cwd=tmp_path, limits=LIMITS)
                assert (done.returncode, says in done.stderr) == (1, True), (command, file, done.stderr)
                if command != "fmt" and not file.startswith("/"):
                    done = aikit_nix(command, "ok.yaml", "--lock", file, cwd=tmp_path, limits=LIMITS)
                    assert (done.returncode, f"cannot read {file}: it" in done.stderr) == (1, True), done.stderr
        done = aikit_nix("gen", "ok.yaml", "--debian-lock", "pipe", "--packages", "debian", cwd=tmp_path, limits=LIMITS)
        assert (done.returncode, "cannot read pipe: it is a pipe" in done.stderr) == (1, True)
        for command in ("check", "explain", "gen"):
            (tmp_path / "m.yaml").write_text(f"{HEAD}models: [{{name: m, source: m.gguf}}]\n")
            (tmp_path / "m.gguf").unlink(missing_ok=True)
            (tmp_path / "m.gguf").symlink_to("pipe")
            done = aikit_nix(command, "m.yaml", cwd=tmp_path, limits=LIMITS)
            assert "regular file" in done.stdout + done.stderr, done
    finally:
        endless.kill()
        endless.wait()


@pytest.mark.parametrize("data", [b"[" * 100_000, b"\xff", b"{"])
def test_a_debian_lock_that_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "aikitfile.yaml").write_text(
        f"{HEAD}models: [{{name: m, source: https://h.example/m, sha256: '{'1' * 64}'}}]\n"
    )
    (tmp_path / "l").write_bytes(data)
    done = aikit_nix("gen", "--packages", "debian", "--debian-lock", "l", "--flake", "out", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr, "l is no lock of Debian packages" in done.stderr) == (
        1,
        False,
        True,
    ), done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small or read-only file system")
def test_what_cannot_be_written_is_one_error_and_nothing_is_left(tmp_path: Path) -> None:
    """On a full and on a read-only file system, which a mount namespace of its own has."""
    (tmp_path / "small").mkdir()
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    run = f"{sys.executable} -m aikit_nix.cli"
    script = f"""
        cd {tmp_path}
        mount -t tmpfs -o size=64k none small && cd small || exit 99
        printf '%s' 'apiVersion: v1alpha1\nmodels: [ {{name: m, source: m.gguf}}]\n' > a.yaml
        ln {tmp_path}/m.gguf m.gguf 2>/dev/null || cp {tmp_path}/m.gguf m.gguf
        cat a.yaml > before
        dd if=/dev/zero of=fill bs=4096 2>/dev/null
        {run} init --model m.gguf -o new.yaml; echo "status $?"
        {run} init --model m.gguf -o new/new.yaml; echo "status $?"
        {run} fmt a.yaml; echo "status $?"
        rm fill; mount -o remount,ro none .
        {run} init --model m.gguf -o new.yaml; echo "status $?"
        {run} fmt a.yaml; echo "status $?"
        {run} gen a.yaml -o out; echo "status $?"
        cmp a.yaml before && ls -A
    """
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr}")
    assert "Traceback" not in done.stderr
    said = [line for line in done.stdout.split("\n") if not line.startswith("added ")]
    assert said == ["status 1"] * 6 + ["a.yaml", "before", "m.gguf", ""], done
    for says in (
        "new.yaml: no space left on device",
        "a.yaml: no space",
        "new.yaml: read-only file",
        "a.yaml: read-only",
    ):
        assert f"error: cannot write {says}" in done.stderr
    assert done.stderr.count("error: ") == 6
