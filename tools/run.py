"""Runs a make target after installing what it needs: `run.py demo|test|test-quick|test-pythons|lint|bench|fuzz`.

Programs come from Debian through apt-get, Python packages from the package index into .venv. Only what is
missing is installed, and each time it is said what and why. This file needs nothing but Python itself.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aikit_nix.nix import setup
from support import pythons as debian_python

ROOT = Path(__file__).resolve().parents[1]
QUICK = sys.argv[1:2] == ["test-quick"]
# Each Python has its own: security updates change what the standard library does.
VENV = ROOT / (f"build/venv-{hashlib.sha256(sys.version.encode()).hexdigest()[:8]}" if QUICK else ".venv")
PROGRAMS = ROOT / "build/programs"  # what is unpacked and not installed
PYTHON = VENV / "bin/python"

# What to look for, the Debian package that has it, and why it is needed.
NIX = ("nix", "nix-bin", "builds the image")
BUBBLEWRAP = ("bwrap", "bubblewrap", "starts the image in isolation")
GPGV = ("gpgv", "gpgv", "checks Debian's signature")
CURL = ("curl", "curl", "is what fetch and push are measured beside")
OPENSSL = ("openssl", "openssl", "makes a certificate for a server on loopback")
SKOPEO = ("skopeo", "skopeo", "reads the image as other tools do")
REGISTRY = ("docker-registry", "docker-registry", "takes the image that is pushed")
RUNC = ("runc", "runc", "starts podman's containers")
HTPASSWD = ("htpasswd", "apache2-utils", "makes a login for a registry")
PODMAN = ("podman", "podman", "takes the image as users do")
PATCHELF = ("patchelf", "patchelf", "makes programs that lack a library")
# Installed they would start a service that listens on every interface: these are unpacked instead.
UNPACKED = (REGISTRY,)
VENV_MODULE = ("ensurepip", "python3-venv", "makes the virtual environment")

QUICK_TESTS = [
    *("tests/base", "tests/aikitfile", "tests/registry/test_artifact.py", "tests/registry/test_reference.py"),
    *(
        "tests/image/test_archive.py",
        "tests/image/test_layout.py",
        "tests/image/test_rootfs.py",
        "tests/models/test_layer.py",
    ),
    *(
        "tests/models/test_archive.py",
        "tests/models/test_lock.py",
        "tests/attest/test_verify.py",
        "tests/debian/test_index.py",
    ),
    *("tests/engines/llama_server/test_gojinja.py", "tests/sources/test_gguf.py", "tests/sources/test_names.py"),
]

# For each target: the programs, the dependency group of pyproject.toml, and what is run.
TARGETS = {
    "demo": ((NIX, BUBBLEWRAP, GPGV), "demo", ["tools/demo.py"]),
    "test": (
        (NIX, BUBBLEWRAP, GPGV, OPENSSL, SKOPEO, PATCHELF, REGISTRY, HTPASSWD, PODMAN, RUNC),
        "dev",
        ["-m", "pytest", "-n", "auto", "--dist", "loadfile"],
    ),
    # No Nix, no server, no container: readers, languages, registries in process.
    "test-quick": ((), "dev", ["-m", "pytest", "--quick", "-n", "auto", *QUICK_TESTS]),
    "lint": ((NIX,), "dev", ["tools/lint.py"]),
    "bench": ((NIX, BUBBLEWRAP, CURL, GPGV, REGISTRY), "dev", ["tools/bench.py"]),
    "fuzz": ((), "dev", ["tools/fuzz.py"]),
}


class CannotError(Exception):
    """What stands in the way, and what to do about it."""


def main(target: str) -> None:
    """Install what the target needs, then become it."""
    if target == "test-pythons":
        test_pythons()
        return
    started = time.time()
    programs, group, command = TARGETS[target]
    os.chdir(ROOT)
    os.environ["PATH"] = os.pathsep.join([setup.path(), str(PROGRAMS / "usr/bin")])
    prepare_machine(programs)
    make_venv(group)
    os.environ.update(AIKIT_NIX_STARTED=str(started))
    os.execv(PYTHON, [str(PYTHON), *command])


def test_pythons() -> None:
    """The quick tests with the system's own Python, as its security updates have left it, and with Debian 13's."""
    pythons = [Path("/usr/bin/python3")]
    try:
        pythons.append(debian_python.trixie(ROOT / "build/python-trixie"))
    except debian_python.NoPythonError as reason:
        say(f"not tested with Debian 13's Python: {reason}")
    for python in filter(Path.exists, pythons):
        say(f"The quick tests with {python}")
        if subprocess.run([python, __file__, "test-quick"], check=False).returncode:
            raise CannotError(f"the quick tests fail with {python}")


def prepare_machine(programs: tuple[tuple[str, str, str], ...]) -> None:
    """Do what only root may: install the programs that are missing, and make /nix where no daemon will."""
    absent = [entry for entry in programs if not shutil.which(entry[0])]
    missing = [entry for entry in absent if entry not in UNPACKED]
    unpacked = [entry for entry in absent if entry in UNPACKED]
    if not PYTHON.exists() and not _has_ensurepip():
        missing.append(VENV_MODULE)
    needs, commands = [], []
    if missing:
        needs = [f"{package} ({why})" for _, package, why in missing]
        if not shutil.which("apt-get"):
            raise CannotError(f"missing: {', '.join(needs)}. Install them with this system's package manager")
        apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
        packages = [package for _, package, _ in missing]
        commands = [[*apt, "update"], [*apt, "install", "--no-install-recommends", *packages]]
    if setup.lacks_store():
        needs.append("/nix (a folder of yours for the Nix store: there is no Nix daemon)")
        commands.append(["install", "-d", "-o", str(os.getuid()), "-g", str(os.getgid()), "/nix"])
    if commands:
        rights = become_root(needs, commands)
        say(f"Installing {', '.join(needs)}")
        for command in commands:
            quietly([*rights, *command], "the machine could not be prepared: do the mirrors in /etc/apt answer?")
    for _, package, why in unpacked:
        unpack(package, why, refresh=not missing)
    if problem := setup.problem():
        raise CannotError(problem)


def unpack(package: str, why: str, *, refresh: bool) -> None:
    """A Debian package's files into PROGRAMS, none of its services started. `refresh` is whether apt's lists may be old."""
    if not shutil.which("apt-get"):
        raise CannotError(f"missing: {package} ({why}). Install it with this system's package manager")
    say(f"Unpacking {package} ({why}) into {PROGRAMS.relative_to(ROOT)}")
    if refresh:
        update = ["apt-get", "-q", "update"]
        quietly([*become_root([f"{package} ({why})"], [update]), *update], "apt-get update failed")
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        failed = f"{package} could not be had: do the mirrors in /etc/apt answer?"
        quietly(["env", "-C", folder, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package], failed)
        (archive,) = Path(folder).glob("*.deb")
        quietly(["dpkg-deb", "-x", str(archive), str(PROGRAMS)], failed)


def become_root(needs: list[str], commands: list[list[str]]) -> list[str]:
    """What to put before a command that only root may run. Raises CannotError for a user without sudo."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        if subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0:
            return ["sudo", "-n"]
        if sys.stdin.isatty():
            return ["sudo"]
    raise CannotError(
        f"missing: {', '.join(needs)}.\nYou are not root and cannot use sudo here; what an administrator has to run:\n"
        + "\n".join(f"  {shlex.join(command)}" for command in commands)
    )


def make_venv(group: str) -> None:
    """Make .venv, or bring it up to date with pyproject.toml: the project itself and the group's packages."""
    import tomllib

    pyproject = (ROOT / "pyproject.toml").read_bytes()
    groups = tomllib.loads(pyproject.decode())["dependency-groups"]
    state = hashlib.sha256(f"{sys.version} {ROOT} {group}".encode() + pyproject).hexdigest()
    mark = VENV / f"installed-{group}"
    if PYTHON.exists() and mark.exists() and mark.read_text() == state:
        return
    say(f"Installing Python packages into {VENV.name} (about a minute the first time)")
    if not PYTHON.exists() or mark.exists():
        quietly([sys.executable, "-m", "venv", "--clear", str(VENV)], "the virtual environment could not be made")
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-q"]
    quietly(
        [*pip, "-e", str(ROOT), *packages_of(group, groups)],
        "pip could not install them: does the package index answer?",
    )
    mark.write_text(state)


def packages_of(group: str, groups: dict[str, list[str | dict[str, str]]]) -> list[str]:
    """A dependency group with those that it includes (PEP 735; Debian 12's pip does not know it)."""
    found: list[str] = []
    for entry in groups[group]:
        found += [entry] if isinstance(entry, str) else packages_of(entry["include-group"], groups)
    return found


def _has_ensurepip() -> bool:
    # Debian ships the module, without the wheels that it installs, apart from Python.
    import importlib.util

    return importlib.util.find_spec("ensurepip") is not None


def quietly(argv: list[str], failed: str) -> None:
    """Run a program; show how long it takes, and what it says only if it fails."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    process.wait(1)
                    break
                except subprocess.TimeoutExpired:
                    if sys.stdout.isatty():
                        print(f"\r  {time.monotonic() - started:.0f} s", end="", flush=True)
        except KeyboardInterrupt:
            process.wait()  # it was interrupted too: let it clean up
            raise
        log.seek(0)
        said = log.read().decode(errors="replace").strip().splitlines()
    end = "\r" if sys.stdout.isatty() else ""
    if process.returncode != 0:
        # pip says what went wrong some lines before it ends.
        errors = [line for line in said if re.match(r"\s*(E|Err|ERROR|error): ", line)]
        tail = "\n  ".join((errors or said)[-8:])
        raise CannotError(f"{failed} (`{shlex.join(argv)}` ended with status {process.returncode}):\n  {tail}")
    if (seconds := time.monotonic() - started) > 1:
        say(f"{end}  done in {seconds:.0f} s")
    for line in said:
        if line.startswith("W: "):  # apt-get goes on without a mirror that does not answer
            say(f"  {line}")


def say(text: str) -> None:
    """Tell the user at once, also through a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 (a user's python3 may be older)
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"error: Python 3.11 or newer is needed, this is {found}: try `make PYTHON=python3.11 …`")
    try:
        main(sys.argv[1])
    except CannotError as problem:
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
