"""What of the image's files is a model to serve, and what belongs to one."""

from __future__ import annotations

from aikit_nix.aikitfile.parser import parse
from aikit_nix.engines import companions
from aikit_nix.sources.gguf import Facts
from aikit_nix.sources.role import Role


def test_models_companions_and_what_is_neither() -> None:
    names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "eye.gguf", "tokenizer.json", "weights.bin", "odd"]
    models = "".join(f"  - {{name: {name}, source: {name}}}\n" for name in names)
    aikitfile, _ = parse(f"apiVersion: v1alpha1\nmodels:\n{models}".encode(), "aikitfile.yaml")
    headers = {"/models/eye.gguf": Facts(role=Role.PROJECTOR), "/models/weights.bin": Facts()}
    files = companions.sort(aikitfile, headers)
    assert [model.path for model in files.served] == [
        "/models/m-00001-of-00002.gguf",
        "/models/weights.bin",
        "/models/odd",
    ]
    assert [(model.path, role) for model, role in files.companions] == [("/models/eye.gguf", Role.PROJECTOR)]
