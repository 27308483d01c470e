"""The Debian package set, built by Nix in its sandbox from the machine's own mirror."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from aikit_nix.debian import lock as debian
from aikit_nix.debian import mirror
from support import debian_lock
from support.debian_set import DebianSet

BACKENDS = {"avx": "sandybridge", "avx2": "haswell", "avx512": "skylakex"}


# --- The engine


@pytest.mark.parametrize(("runtime", "backend"), BACKENDS.items())
def test_an_engine_has_one_backend(debian_set: DebianSet, runtime: str, backend: str) -> None:
    root = debian_set.build("set.engine.root", runtime=runtime)
    assert [file.name for file in root.rglob("libggml-*.so")] == [f"libggml-cpu-{backend}.so"]
    size = sum(file.lstat().st_size for file in root.rglob("*"))
    assert size < 36_000_000


def test_without_an_instruction_set_there_is_a_backend_for_each_processor(debian_set: DebianSet) -> None:
    root = debian_set.build("set.engine.root", runtime="cpu")
    assert {f"libggml-cpu-{name}.so" for name in ("x64", *BACKENDS.values())} < {
        file.name for file in root.rglob("libggml-*.so")
    }


def test_an_image_has_debians_files_as_debian_made_them(debian_set: DebianSet) -> None:
    root = debian_set.build("set.engine.root")
    seen = set()
    for sums in root.glob("var/lib/dpkg/status.d/*.md5sums"):
        for line in sums.read_text().splitlines():
            md5, path = line.split(None, 1)
            if (root / path).is_file():
                assert hashlib.md5((root / path).read_bytes(), usedforsecurity=False).hexdigest() == md5, path
                seen.add(root / path)
    made_here = {root / "etc/ssl/certs/ca-certificates.crt", *root.glob("var/lib/dpkg/status.d/*")}
    unknown = {file for file in root.rglob("*") if file.is_file() and not file.is_symlink()} - seen - made_here
    # Debian lists no configuration files there; a copyright may be that of the package which it is linked to.
    assert {str(file.relative_to(root)) for file in unknown if file.name != "copyright"} <= {"etc/debian_version"}


def test_an_image_has_nothing_of_the_machine_that_made_it(debian_set: DebianSet) -> None:
    root = debian_set.build("set.engine.root")
    for file in root.rglob("*"):
        content = os.fsencode(file.readlink()) if file.is_symlink() else file.read_bytes() if file.is_file() else b""
        assert b"/nix/store" not in content, file
    assert references(root) == []


def test_an_engine_runs_from_the_store_alone(debian_set: DebianSet) -> None:
    engine, root = debian_set.build("set.engine.package"), debian_set.build("set.engine.root")
    program = engine / "bin/llama-server"
    loads = subprocess.run(
        [program], env={"LD_TRACE_LOADED_OBJECTS": "1"}, capture_output=True, text=True, check=True
    ).stdout
    paths = re.findall(r"(/\S+) \(0x", loads)
    assert len(paths) > 10
    assert all(path.startswith((f"{engine}/", f"{root}/")) for path in paths), loads
    assert sorted(references(engine)) == sorted([str(engine), str(root)])


def references(path: Path) -> list[str]:
    argv = ["nix-store", "-q", "--references", str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("runtime", ["avx", "avx2", "avx512"])
def test_the_backend_is_the_one_that_is_loaded(debian_set: DebianSet, runtime: str) -> None:
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    needed = {"avx": "avx", "avx2": "avx2", "avx512": "avx512f"}[runtime]
    if not flags or needed not in flags[1].split():
        pytest.skip(f"this machine's processor has no {needed}")
    engine = debian_set.build("set.engine.package", runtime=runtime)
    done = subprocess.run(
        [engine / "bin/llama-server", "-lv", "5", "--model", "/nothing.gguf"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    loaded = re.findall(r"libggml-cpu-(\w+)\.so", done.stdout + done.stderr)
    assert set(loaded) == {BACKENDS[runtime]}


@pytest.mark.parametrize(
    ("system", "runtime", "message"),
    [
        ("x86_64-linux", "metal", "no runtime metal: use nixpkgs"),
        ("aarch64-linux", "avx2", "no ggml backend cpu-haswell"),
        ("aarch64-linux", "rocm", "have no rocm for aarch64-linux"),
    ],
)
def test_a_runtime_that_debian_lacks_is_refused(debian_set: DebianSet, system: str, runtime: str, message: str) -> None:
    done = debian_set.try_build("set.engine.root", runtime=runtime, system=system)
    assert done.returncode != 0
    assert message in done.stderr


def test_the_image_says_where_its_programs_come_from(debian_set: DebianSet) -> None:
    root = debian_set.build("set.engine.root")
    pinned = debian.DebianLock.read(debian_set.lock).architectures["amd64"]
    folder = root / "var/lib/dpkg/status.d"
    status = {file.name: file.read_text() for file in folder.iterdir() if file.suffix != ".md5sums"}
    # gcc-16-base has nothing but documentation.
    assert {name for name in pinned.engine if not re.fullmatch(r"gcc-\d+-base", name)} == set(status)
    for name, text in status.items():
        assert f"Package: {name}\n" in text
        assert f"Version: {pinned.packages[name].version}\n" in text
        assert (root / f"usr/share/doc/{name}/copyright").stat().st_size > 500
        assert (folder / f"{name}.md5sums").is_file()
    # What the copyright files point to.
    assert (root / "usr/share/common-licenses/GPL-3").stat().st_size > 30_000


def test_the_image_is_of_the_release_that_scanners_know(debian_set: DebianSet) -> None:
    """Debian's unstable calls itself by the name of what it becomes; a codename `sid` no scanner knows."""
    root = debian_set.build("set.engine.root")
    release = dict(line.split("=", 1) for line in (root / "etc/os-release").read_text().splitlines())
    assert release["ID"] == "debian"
    codename = release["VERSION_CODENAME"]
    assert codename not in ("", "sid", "unstable")
    assert release["PRETTY_NAME"] == f'"Debian GNU/Linux {codename}/sid"'
    assert (root / "etc/debian_version").read_text() == f"{codename}/sid\n"
    (deb,) = (path for path in requisites_of_build(debian_set) if "-base-files_" in path)
    if shutil.which("dpkg-deb"):
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run(["dpkg-deb", "-x", deb, scratch], check=True)
            for name in ("etc/os-release", "usr/lib/os-release", "etc/debian_version"):
                assert Path(scratch, name).read_bytes() == (root / name).read_bytes()


def requisites_of_build(debian_set: DebianSet) -> list[str]:
    """What the root is built from."""
    script = debian_set.build('pkgs.writeText "inputs" (toString set.engine.root.debs)')
    return script.read_text().split()


# --- Another processor's


def machine(file: Path) -> int | None:
    """e_machine of an ELF file (elf(5)); None for any other file."""
    with file.open("rb") as stream:
        head = stream.read(20)
    return int.from_bytes(head[18:20], "little") if head[:4] == b"\x7fELF" else None


@pytest.mark.parametrize("runtime", ["cpu", "vulkan"])
def test_an_image_for_arm64_is_made_on_any_machine(debian_set: DebianSet, runtime: str) -> None:
    """`cuda` is fetched by test_debian_images."""
    debian_lock.prefetch(debian.DebianLock.read(debian_set.lock), mirror.mirrors(), runtime)
    root = debian_set.build("set.engine.root", runtime=runtime, system="aarch64-linux")
    machines = {path: machine(path) for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
    assert {number for number in machines.values() if number} == {183}  # EM_AARCH64
    assert machines[root / "usr/bin/llama-server"] == 183
    assert (root / "lib/ld-linux-aarch64.so.1").is_file()
    assert len(list(root.rglob("libggml-cpu-armv*.so"))) >= 8
    for file in (path for path, number in machines.items() if number):
        needs = subprocess.run(
            [debian_set.build("pkgs.python3") / "bin/patchelf", "--print-needed", file],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for library in needs:
            assert list(root.glob(f"usr/lib/**/{library}")), f"{file} needs {library}"
    built_for = debian_set.build(
        'pkgs.writeText "system" (builtins.toJSON [ set.engine.root.system pkgs.stdenv.hostPlatform ])',
        system="aarch64-linux",
    )
    assert json.loads(built_for.read_text()) == [
        "x86_64-linux",
        {"system": "aarch64-linux"},
    ]


def test_other_tools_give_the_same_files(debian_set: DebianSet) -> None:
    """What a builder of another kind would give: its own programs lie at other store paths, and nothing tells."""
    here = debian_set.build("set.engine.root")
    nix = debian_set.folder / "builder.nix"
    text = nix.read_text()
    assert "$busybox mkdir -p $out/bin" in text
    nix.write_text(text.replace("$busybox mkdir -p $out/bin", "$busybox mkdir -p $out/bin $out/other"))
    there = debian_set.build("set.engine.root")
    assert here != there
    hashes = [
        subprocess.run(["nix-hash", "--type", "sha256", path], capture_output=True, check=True).stdout
        for path in (here, there)
    ]
    assert hashes[0] == hashes[1]


def test_the_certificates_are_one_bundle(debian_set: DebianSet) -> None:
    bundle = debian_set.build("set.engine.root") / "etc/ssl/certs/ca-certificates.crt"
    import ssl

    assert len(ssl.create_default_context(cafile=str(bundle)).get_ca_certs()) > 100


@pytest.mark.parametrize("attribute", ["set.engine.package", "set.engine.root", "pkgs.python3"])
def test_a_rebuild_gives_the_same(debian_set: DebianSet, attribute: str) -> None:
    debian_set.build(attribute)
    debian_set.build(attribute, "--check")


def test_a_newer_nix_builds_the_same(
    debian_set: DebianSet, newer_programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From nothing, in a store of its own, Nix itself fetching: Debian 13's where the machine's is older."""
    monkeypatch.setenv(mirror.MIRROR, mirror.machine_mirror() or "")
    engine, root = debian_set.build("set.engine.package"), debian_set.build("set.engine.root")
    argv: list[str | Path] = [
        newer_programs / "nix-build",
        "--store",
        tmp_path / "store",
        "--option",
        "sandbox-paths",
        "",
        "--no-out-link",
        "-E",
    ]
    set_ = f'import {debian_set.folder} {{ system = "x86_64-linux"; runtime = "avx2"; }}'
    done = subprocess.run(
        [*argv, f"with {set_}; [ engine.package engine.root ]"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == [str(engine), str(root)]
    for path in (engine, root):
        copy = subprocess.run(
            ["nix-hash", "--type", "sha256", f"{tmp_path}/store{path}"], capture_output=True, check=True
        )
        ours = subprocess.run(["nix-hash", "--type", "sha256", path], capture_output=True, check=True)
        assert copy.stdout == ours.stdout
    subprocess.run(["chmod", "-R", "u+w", tmp_path / "store"], check=True)  # for pytest to remove it
