"""Package URLs: what has a place in one, and how it is written."""

from __future__ import annotations

import pytest

from aikit_nix.attest import purls
from aikit_nix.flakes.materials import ModelMaterial
from aikit_nix.flakes.plan import ModelFile
from aikit_nix.models.entry import Origin

FILE = ModelFile("/models/m.gguf", "m.gguf", None, "0" * 64)


@pytest.mark.parametrize(
    ("origin", "purl"),
    [
        (Origin("huggingface", "Me/Model-GGUF", "ABC"), "pkg:huggingface/Me/Model-GGUF@abc"),
        (Origin("oci", "r.example/me/m", "sha256:1"), "pkg:oci/m@sha256:1?repository_url=r.example/me/m"),
        (Origin("oci", "r.example/", "sha256:1"), None),
        (Origin("huggingface", "me/", "abc"), None),
        (Origin("huggingface", "me/m", None), None),
        (Origin("http", None, None), None),
        (None, None),
    ],
)
def test_a_model_has_one_where_its_origin_has_a_place_in_it(origin: Origin | None, purl: str | None) -> None:
    found = purls.of_model(ModelMaterial(FILE, None, origin, None))
    assert (str(found) if found else None) == purl
