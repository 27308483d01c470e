"""What models and packages are called as package URLs: https://github.com/package-url/purl-spec."""

from __future__ import annotations

import posixpath

from packageurl import PackageURL

from aikit_nix.debian.index import Package
from aikit_nix.flakes.materials import ModelMaterial


def of_model(model: ModelMaterial) -> PackageURL | None:
    """`pkg:huggingface/NAMESPACE/REPOSITORY@COMMIT`, or pkg:oci; None for what has no place in a purl."""
    origin = model.origin
    if origin is None or not origin.repository or not origin.revision:
        return None
    if origin.kind == "huggingface":
        return on_hub(origin.repository, origin.revision)
    name = posixpath.basename(origin.repository)
    if origin.kind == "oci" and name:
        return PackageURL("oci", None, name, origin.revision, {"repository_url": origin.repository})
    return None


def on_hub(repository: str, revision: str | None = None) -> PackageURL | None:
    """Case matters on Hugging Face, and the type's rules keep it but for the version."""
    namespace, _, name = repository.rpartition("/")
    if not name:
        return None
    return PackageURL("huggingface", namespace or None, name, revision.lower() if revision else None)


def of_deb(package: Package, architecture: str, suite: str) -> PackageURL:
    """`pkg:deb/debian/NAME@VERSION?arch=…&distro=…`, as Syft and Debian's tracker write it."""
    own = "all" if package.filename.endswith("_all.deb") else architecture
    return PackageURL("deb", "debian", package.name, package.version, {"arch": own, "distro": f"debian-{suite}"})
