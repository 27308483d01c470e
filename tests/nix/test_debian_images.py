"""Images of Debian's packages for GPUs and for arm64: built by Nix here, and started.

A first run downloads about 330 MB for CUDA and 70 MB for Vulkan from the machine's Debian mirror, and 65 MB for arm64.
No GPU is needed: CUDA meets a driver without one, or no driver; Vulkan has a device that is the processor itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.debian import lock as debian
from aikit_nix.debian import mirror
from support import container, debian_lock, image, tiny_gguf
from support.command import aikit_nix

STUB = Path(__file__).parents[1] / "fixtures/libcuda.c"
EMULATOR = shutil.which("qemu-aarch64-static")


@pytest.fixture(scope="module")
def folder(nix: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an aikitfile, where the machine's mirror has what is pinned."""
    folder = tmp_path_factory.mktemp("debian-images")
    shutil.copy(tiny_model, folder / "tiny.gguf")
    (folder / "aikitfile.yaml").write_text("apiVersion: v1alpha1\nmodels:\n  - {name: tiny, source: tiny.gguf}\n")
    try:
        mirrors = mirror.mirrors()
    except AikitError as problem:
        pytest.skip(str(problem))
    with pytest.MonkeyPatch.context() as patch:
        if path := debian_lock.usable(folder, print, None):
            patch.setenv("AIKIT_DEBIAN_LOCK", str(path))
        lock = debian.DebianLock.read(path or debian.LOCK)
        if debian.missing(lock, mirrors):
            pytest.skip("no Debian mirror answers that has the pinned packages")
        for runtime in ("cuda", "vulkan"):
            debian_lock.prefetch(lock, mirrors, runtime)
        yield folder


def unpacked(folder: Path, runtime: str, root: Path, system: str = "x86_64-linux") -> image.Image:
    """The image of a runtime, unpacked into `root`."""
    done = aikit_nix("gen", "--packages", "debian", "--flake", f"flake-{runtime}", cwd=folder)
    assert done.returncode == 0, done.stderr
    argv = ["nix", "build", f"path:{folder}/flake-{runtime}#packages.{system}.image-{runtime}", "--no-link", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return image.unpack(Path(json.loads(done.stdout)[0]["outputs"]["out"]), root)


@pytest.fixture(scope="module")
def cuda(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[image.Image, Path]:
    root = tmp_path_factory.mktemp("cuda") / "root"
    return unpacked(folder, "cuda", root), root


def test_a_cuda_image_says_what_is_not_free(cuda: tuple[image.Image, Path]) -> None:
    read, root = cuda
    labels = read.run["Labels"]
    assert labels["aikit-nix.debian.contrib"] == "libggml0-backend-cuda"
    assert labels["aikit-nix.debian.non-free"] == "libcublas12 libcublaslt12 libcudart12"
    assert "NVIDIA" in labels["org.opencontainers.image.licenses"]
    for package in ("libcublas12", "libcublaslt12", "libcudart12"):
        assert "NVIDIA Software License Agreement" in (root / f"usr/share/doc/{package}/copyright").read_text()
        assert (root / f"var/lib/dpkg/status.d/{package}").is_file()
    assert not list(root.rglob("libcuda.so*"))  # the driver's, mounted where there is one
    assert "NVIDIA_VISIBLE_DEVICES=all" in read.run["Env"]


@pytest.mark.usefixtures("bubblewrap")
def test_a_cuda_image_answers_without_a_driver(cuda: tuple[image.Image, Path]) -> None:
    with container.start(*cuda, arguments=["-lv", "5"]) as server:
        assert server.chat("Hello") == tiny_gguf.SENTENCE
        assert "libggml-cpu-" in loaded(server)
        assert "libggml-cuda" not in loaded(server)


@pytest.mark.usefixtures("bubblewrap")
def test_a_cuda_image_answers_where_the_driver_has_no_gpu(cuda: tuple[image.Image, Path], tmp_path: Path) -> None:
    """The stub driver lies where the NVIDIA container toolkit puts the real one: into Debian's folder, for a Debian."""
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed: it compiles the stub of NVIDIA's driver")
    read, root = cuda
    driver = root / "usr/lib/x86_64-linux-gnu/libcuda.so.1"
    argv: list[str | Path] = [
        "gcc",
        "-Wall",
        "-Werror",
        "-shared",
        "-fPIC",
        "-Wl,-soname,libcuda.so.1",
        "-o",
        tmp_path / "driver",
        STUB,
    ]
    subprocess.run(argv, check=True)
    driver.parent.chmod(0o755)
    shutil.copy(tmp_path / "driver", driver)
    try:
        with container.start(read, root, arguments=["-lv", "5"]) as server:
            assert server.chat("Hello") == tiny_gguf.SENTENCE
            assert "no CUDA-capable device is detected" in server.log()
            assert "libggml-cuda.so" in loaded(server)
            assert "libggml-cpu-" in loaded(server)
    finally:
        driver.unlink()


def loaded(server: container.Container) -> str:
    """The lines about the backends that were loaded."""
    return "\n".join(line for line in server.log().splitlines() if "load_backend: loaded" in line)


@pytest.mark.usefixtures("bubblewrap")
def test_a_vulkan_image_computes_on_a_vulkan_device(folder: Path, tmp_path: Path) -> None:
    read = unpacked(folder, "vulkan", tmp_path / "root")
    icds = {path.name for path in (tmp_path / "root/usr/share/vulkan/icd.d").iterdir()}
    assert {"intel_icd.json", "radeon_icd.json", "nouveau_icd.json"} <= icds
    for icd in (tmp_path / "root/usr/share/vulkan/icd.d").iterdir():
        library = json.loads(icd.read_text())["ICD"]["library_path"]
        assert list((tmp_path / "root").glob(f"usr/lib/*/{library.rpartition('/')[2]}")), icd
    with container.start(read, tmp_path / "root", arguments=["-lv", "5"]) as server:
        assert server.chat("Hello") == tiny_gguf.SENTENCE
        assert "offloaded 2/2 layers to GPU" not in server.log()
    env = {"GGML_VK_VISIBLE_DEVICES": "0"}
    with container.start(read, tmp_path / "root", arguments=["-lv", "5"], env=env) as server:
        assert server.chat("Hello") == tiny_gguf.SENTENCE
        assert "using device Vulkan0 (llvmpipe" in server.log()
        assert "offloaded 2/2 layers to GPU" in server.log()


@pytest.mark.usefixtures("bubblewrap")
def test_an_image_for_arm64_answers(folder: Path, tmp_path: Path) -> None:
    """Built on this machine's processor, started under an emulator."""
    read = unpacked(folder, "cpu", tmp_path / "root", "aarch64-linux")
    assert read.configuration["architecture"] == "arm64"
    if not EMULATOR:
        pytest.skip("qemu-aarch64-static is not installed: apt-get install qemu-user-static")
    with container.start(read, tmp_path / "root", emulator=EMULATOR, timeout=300) as server:
        assert server.chat("Hello") == tiny_gguf.SENTENCE


BINFMT = r"""
set -e
mkdir "$1/binfmt"
mount -t binfmt_misc none "$1/binfmt"
printf '%s' ':arm64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'"$2:PF" \
  > "$1/binfmt/register"
exec nix-build --no-out-link --option extra-platforms aarch64-linux --option filter-syscalls false -E "$3"
"""


def test_an_arm64_machine_makes_the_same_image(folder: Path, tmp_path: Path) -> None:
    """Emulated: in a user namespace of its own, where the kernel runs arm64 programs, also in Nix's sandbox."""
    if not EMULATOR or os.geteuid() != 0 or not os.environ.get("EMULATE_ARM64"):
        pytest.skip("takes minutes: set EMULATE_ARM64=1, as root and with qemu-aarch64-static (qemu-user-static)")
    unpacked(folder, "cpu", tmp_path / "root", "aarch64-linux")
    set_ = f'import {folder}/flake-cpu/aikit/packages/debian {{ system = "aarch64-linux"; runtime = "cpu"; buildSystem = "%s"; }}'
    argv = ["nix-build", "--no-out-link", "-E", f"({set_ % 'x86_64-linux'}).engine.root"]
    here = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    script = ["sh", "-c", 'read _; exec bash -c "$0" "$@"', BINFMT, "binfmt", str(tmp_path), EMULATOR]
    process = subprocess.Popen(
        ["unshare", "--user", "--mount", *script, f"({set_ % 'aarch64-linux'}).engine.root"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    for mapping in ("uid_map", "gid_map"):
        # All of them: Nix's builders change theirs.
        retry_write(Path(f"/proc/{process.pid}/{mapping}"), "0 0 4294967295")
    there = process.communicate("go\n")[0].strip()
    assert process.returncode == 0
    assert here != there
    hashes = {
        subprocess.run(["nix-hash", "--type", "sha256", path], capture_output=True, check=True).stdout
        for path in (here, there)
    }
    assert len(hashes) == 1


def retry_write(path: Path, text: str) -> None:
    """Write to a file of /proc that can be written as soon as the process is in its namespace."""
    import time

    for _ in range(100):
        try:
            path.write_text(text)
        except PermissionError:
            time.sleep(0.05)
        else:
            return
    path.write_text(text)
