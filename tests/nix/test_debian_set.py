"""The Debian package set, built by Nix in its sandbox from the machine's own mirror."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aikit_nix import data, debian
from support import debian_lock
from support.file_server import FileServer

BACKENDS = {"avx": "sandybridge", "avx2": "haswell", "avx512": "skylakex"}


@dataclasses.dataclass(frozen=True)
class DebianSet:
    """A copy of the package set."""

    folder: Path

    @property
    def lock(self) -> Path:
        return self.folder / "lock.json"

    def try_build(
        self, attribute: str, *options: str, runtime: str = "avx2", system: str = "x86_64-linux"
    ) -> subprocess.CompletedProcess[str]:
        """nix-build of an attribute; the caller's texts are only ever Nix code here, in the test."""
        set_ = f'import {self.folder} {{ system = "{system}"; runtime = "{runtime}"; }}'
        argv = ["nix-build", "--no-out-link", "-E", f"let set = {set_}; inherit (set) pkgs; in {attribute}"]
        return subprocess.run([*argv, *options], capture_output=True, text=True, check=False)

    def build(self, attribute: str, *options: str, runtime: str = "avx2", system: str = "x86_64-linux") -> Path:
        done = self.try_build(attribute, *options, runtime=runtime, system=system)
        assert done.returncode == 0, done.stderr[-4000:]
        return Path(done.stdout.split()[-1])

    def run(self, script: str, **env: str) -> subprocess.CompletedProcess[str]:
        """What a runCommand says on its error output."""
        settings = "".join(f"{name} = {value}; " for name, value in env.items())
        return self.try_build(f"pkgs.runCommand \"test\" {{ {settings}}} ''{script}''")


@pytest.fixture(scope="module")
def usable_lock(nix: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lock whose files can be had, and the machine's mirror in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in debian.build_environment().items():
            patch.setenv(name, value)
        yield debian_lock.usable(tmp_path_factory.mktemp("lock"), print, None) or debian.LOCK


@pytest.fixture
def debian_set(usable_lock: Path, tmp_path: Path) -> DebianSet:
    shutil.copytree(data.NIX, tmp_path / "nix")
    folder = tmp_path / "nix/packages/debian"
    shutil.copy(usable_lock, folder / "lock.json")
    return DebianSet(folder)


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
    pinned = debian.Lock.read(debian_set.lock).architectures["amd64"]
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
        {"go": {"GOARCH": "arm64"}, "system": "aarch64-linux"},
    ]


def test_a_machine_without_a_seed_leaves_the_work_to_x86(debian_set: DebianSet) -> None:
    expression = (
        f'(import {debian_set.folder} {{ system = "x86_64-linux"; runtime = "avx2"; buildSystem = "aarch64-darwin"; }})'
        ".engine.root.system"
    )
    done = subprocess.run(["nix-instantiate", "--eval", "-E", expression], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == "x86_64-linux"


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
    bundle = debian_set.build("pkgs.cacert") / "etc/ssl/certs/ca-bundle.crt"
    import ssl

    assert len(ssl.create_default_context(cafile=str(bundle)).get_ca_certs()) > 100


@pytest.mark.parametrize("attribute", ["set.engine.package", "set.engine.root", "pkgs.python3", "pkgs.cacert"])
def test_a_rebuild_gives_the_same(debian_set: DebianSet, attribute: str) -> None:
    debian_set.build(attribute)
    debian_set.build(attribute, "--check")


def test_a_newer_nix_builds_the_same(debian_set: DebianSet, newer_programs: Path, tmp_path: Path) -> None:
    """From nothing, in a store of its own: Debian 13's Nix where the machine's is older."""
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


# --- Fetching


def relock(debian_set: DebianSet, name: str, content: bytes, filename: str) -> None:
    """Pin another file for a package."""
    lock = json.loads(debian_set.lock.read_text())
    sha256 = hashlib.sha256(content).hexdigest()
    lock["architectures"]["amd64"]["packages"][name] |= {"filename": filename, "sha256": sha256, "size": len(content)}
    debian_set.lock.write_text(json.dumps(lock))


@pytest.mark.usefixtures("nix")
def test_a_vanished_package_is_an_error_that_says_what_to_do(
    debian_set: DebianSet, files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"pool/main/g/{files.url[-5:]}_1.deb"
    relock(debian_set, "libggml0", os.urandom(16), name)
    monkeypatch.setenv(debian.MIRROR, f"{files.url}/one {files.url}/two/")
    done = debian_set.try_build("set.engine.package")
    assert done.returncode != 0
    assert "no mirror has Debian's libggml0" in done.stderr
    for mirror in ("one", "two"):
        assert f"{files.url}/{mirror}/{name}: HTTP/1.1 404 Not Found" in done.stderr
    assert (
        f"http://snapshot.debian.org/archive/debian/{json.loads(debian_set.lock.read_text())['snapshot']}/"
        in done.stderr
    )
    assert "aikit-nix debian-lock" in done.stderr


def test_a_wrong_hash_is_an_error_that_says_what_came(
    debian_set: DebianSet, files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    relock(debian_set, "libggml0", os.urandom(16), "pool/main/g/x_1.deb")
    files.files["/pool/main/g/x_1.deb"] = b"something else"
    monkeypatch.setenv(debian.MIRROR, files.url)
    done = debian_set.try_build("set.engine.package")
    assert done.returncode != 0
    assert f"another file, of sha256 {hashlib.sha256(b'something else').hexdigest()}" in done.stderr


def test_names_that_a_store_path_cannot_hold_are_fetched(
    debian_set: DebianSet, files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(64)
    name = "pool/main/g/x_1%3a2~rc1+b1_amd64.deb"
    relock(debian_set, "libggml0", content, name)
    files.files["/pool/main/g/x_1:2~rc1+b1_amd64.deb"] = content
    monkeypatch.setenv(debian.MIRROR, files.url)
    done = debian_set.try_build("set.engine.package")
    assert done.returncode != 0  # the content is no package
    assert files.count("/pool/main/g/x_1:2~rc1+b1_amd64.deb") == 1


# --- The interface


def test_a_command_stops_at_its_first_error(debian_set: DebianSet) -> None:
    assert debian_set.run("false; touch $out").returncode != 0
    assert debian_set.run("false | true; touch $out").returncode != 0
    assert debian_set.run("touch $out").returncode == 0


def test_a_command_has_its_inputs_on_the_path(debian_set: DebianSet) -> None:
    script = "python3 -c \"import sys; open(sys.argv[1], 'w').write(sys.executable)\" $out"
    assert debian_set.run(script).returncode != 0
    assert debian_set.run(script, nativeBuildInputs="[ pkgs.python3 ]").returncode == 0


def test_a_text_may_be_long_and_hold_anything(debian_set: DebianSet) -> None:
    text = "'\"$x`id`\\\n\t${y}ü" * 20_000
    (debian_set.folder / "text").write_text(text)
    expression = f'pkgs.writeText "text" (builtins.readFile {debian_set.folder}/text)'
    assert debian_set.build(expression).read_text() == text


def test_a_script_is_one(debian_set: DebianSet) -> None:
    script = debian_set.build("pkgs.writeShellScript \"say\" ''set -eu; echo \"$1: 'x' \\$\"''")
    done = subprocess.run([script, "a b"], capture_output=True, text=True, check=True)
    assert done.stdout == "a b: 'x' $\n"


# --- dockerTools


def image(
    debian_set: DebianSet, count: int, max_layers: int, more: str = ""
) -> tuple[dict[str, object], list[list[str]]]:
    """The configuration of an image with `count` store paths besides its configuration, and its layers' files."""
    files = " ".join(f'(pkgs.writeText "file-{n}" "{"x" * n}")' for n in range(1, count + 1))
    arguments = (
        f'{{ name = "many"; tag = "1"; maxLayers = {max_layers}; {more} '
        f'config.Env = map (file: "${{file}}") [ {files} ]; '
        "extraCommands = ''mkdir -m 1777 tmp; echo hi > hi; chmod 600 hi; ln -s /nix here''; }"
    )
    script = debian_set.build(f"pkgs.dockerTools.streamLayeredImage {arguments}")
    archive = debian_set.folder / "image.tar"
    archive.write_bytes(subprocess.run([script], capture_output=True, check=True).stdout)
    layers = []
    with tarfile.open(archive) as outer:
        (manifest,) = json.load(outer.extractfile("manifest.json") or pytest.fail())
        assert manifest["RepoTags"] == ["many:1"]
        config = json.load(outer.extractfile(manifest["Config"]) or pytest.fail())
        for name, digest in zip(manifest["Layers"], config["rootfs"]["diff_ids"], strict=True):
            content = (outer.extractfile(name) or pytest.fail()).read()
            assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
            (debian_set.folder / "layer").write_bytes(content)
            with tarfile.open(debian_set.folder / "layer") as layer:
                members = layer.getmembers()
            assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "root", "root", 1)}
            layers.append([f"{m.name} {m.mode:o}" for m in members])
    return config, layers


def test_each_store_path_is_a_layer(debian_set: DebianSet) -> None:
    config, layers = image(debian_set, 3, 100)
    assert config["architecture"] == "amd64"
    assert config["created"] == "1970-01-01T00:00:01Z"
    assert len(layers) == 4
    for layer in layers[:-1]:
        assert layer[:2] == ["nix 755", "nix/store 755"]
        assert re.fullmatch(r"nix/store/\w{32}-file-\d 444", layer[2])
        assert len(layer) == 3
    assert layers[-1] == ["here 777", "hi 600", "tmp 1777"]


def test_the_smallest_share_a_layer_when_there_are_too_many(debian_set: DebianSet) -> None:
    _, layers = image(debian_set, 6, 4)
    names = [sorted(re.findall(r"-(file-\d)", " ".join(layer))) for layer in layers]
    assert names[0] == ["file-1", "file-2", "file-3", "file-4"]
    assert sorted(names[1:3]) == [["file-5"], ["file-6"]]
    assert names[3] == []


def test_store_paths_may_be_left_out(debian_set: DebianSet) -> None:
    _, layers = image(debian_set, 3, 100, "includeStorePaths = false;")
    assert layers == [["here 777", "hi 600", "tmp 1777"]]
