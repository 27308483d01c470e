"""Whoever meets a rule by its name finds what it is about."""

from __future__ import annotations

import json
import os
from pathlib import Path

from aikit_nix.base.rules import DESCRIPTIONS
from support.command import aikit_nix

HEAD = "apiVersion: v1alpha1\n"
SHA = "1" * 64
LATER = {**os.environ, "SOURCE_DATE_EPOCH": "4000000000"}  # when all that is pinned is old
COMPLETION = "template: {completion: 'Q: {{.Input}} A:'}"


def models(*sources: str, more: str = "") -> str:
    return f"{HEAD}models:\n" + "".join(f"  - name: m\n    source: {source}\n{more}" for source in sources)


def config(*lines: str) -> str:
    return models("m.gguf") + "config: |\n  - name: x\n" + "".join(f"    {line}\n" for line in lines)


def locked(**said: object) -> str:
    """aikit.lock with a model whose header says this."""
    url = "https://h.example/m.gguf"
    file = {
        "path": "/models/m.gguf",
        "url": url,
        "size": 1 << 30,
        "sha256": SHA,
        "gguf": {"chatTemplate": True, **said},
    }
    origin = {"kind": "http"}
    return json.dumps({"version": 1, "models": [{"name": "m", "source": url, "origin": origin, "files": [file]}]})


# An aikitfile that breaks each rule, by its name.
BROKEN = {
    "api-version": "apiVersion: v2\n",
    "backend": models("m.gguf") + "backends: [x]\n",
    "collision": models("m.gguf", "a/m.gguf"),
    "combination": models("m.gguf") + "backends: [exllama2]\n",
    "companion": models("https://h.example/m.gguf"),
    "config": config("parameters: {model: none.gguf}"),
    "config-backend": config("backend: none"),
    "config-model": config("mmproj: none.gguf"),
    "config-template": config("template: {chat: none}"),
    "config-type": config("context_size: [1]"),
    "config-yaml": config("- {"),
    "context-size": config("context_size: 999999", "parameters: {model: m.gguf}"),
    "duplicate-backend": models("m.gguf") + "backends: [stablediffusion, stablediffusion]\n",
    "duplicate-key": models("m.gguf") + "debug: no\ndebug: no\n",
    "duplicate-template": models("m.gguf", more="    promptTemplates: [{name: t, template: x}, {name: t, template: x}]\n"),
    "empty-template": models("m.gguf", more="    promptTemplates: [{name: t}]\n"),
    "encoding": "apiVersion: \udcff\n",
    "escapes": models("m.gguf", more="    promptTemplates: [{name: t, template: '{{if eq .R \\\"a\\\"}}x{{end}}'}]\n"),
    "fine-tuning": HEAD + "baseModel: x\n",
    "licence": models("m.gguf") + "runtime: cuda\n",
    "link-outside": models("outside.gguf"),
    "load-to-memory": models("m.gguf") + "loadToMemory: [none]\n",
    "local-file": models("none.gguf"),
    "lock": models("m.gguf"),
    "memory": models("https://h.example/m.gguf"),
    "more": models("m.gguf") + f"backends: [{', '.join(['x'] * 101)}]\n",
    "name": models("m.gguf").replace("name: m", "name: ../m"),
    "no-api-version": "",
    "no-models": HEAD,
    "no-name": HEAD + "models: [{source: m.gguf}]\n",
    "no-source": HEAD + "models: [{name: m}]\n",
    "not-gguf": models("page.gguf"),
    "not-pinned": models("https://h.example/m.gguf"),
    "nul": models("m.gguf") + 'config: "\\0"\n',
    "runtime": models("m.gguf") + "runtime: x\n",
    "setting-lost": config(COMPLETION, "parameters: {model: m.gguf}", "grammar: x"),
    "setting-not-kept": config("parameters: {model: m.gguf}", "mmlock: true"),
    "several-documents": models("m.gguf") + "---\nx: y\n",
    "sha256": models("m.gguf", more="    sha256: abc\n"),
    "sha256-checked": models("m.gguf", more=f"    sha256: {SHA}\n"),
    "sha256-mismatch": models("https://h.example/m.gguf", more=f"    sha256: {'2' * 64}\n"),
    "source": models("ftp://h.example/m.gguf"),
    "template-syntax": models("m.gguf", more="    promptTemplates: [{name: m.gguf, template: '{{'}]\n"),
    "too-large": f"[{'x, ' * 300_000}]",
    "unknown-key": models("m.gguf") + "colour: red\n",
    "unused-model": config("parameters: {model: m.gguf}").replace("models:\n", "models:\n  - {name: n, source: n.gguf}\n"),
    "unused-template": models("m.gguf", more="    promptTemplates: [{name: t, template: x}]\n"),
    "wrong-type": models("m.gguf") + "debug: 1\n",
    "yaml-depth": "[" * 100,
    "yaml-syntax": "a: @b\n",
    "yaml-tag": models("m.gguf") + "debug: !x yes\n",
}  # fmt: skip
LOCKS = {
    "lock": "{",
    "companion": locked(role="projector"),
    "memory": locked(contextLength=1 << 20, memory={"keys": 1 << 40, "values": 1 << 40}),
    "sha256-mismatch": locked(),
}


def test_each_rule_of_check_is_described_by_a_sentence_and_no_other_is(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "project"
    (folder / "old/flake/aikit").mkdir(parents=True)
    (folder / "old/flake/aikit/choices.json").write_text("[]")
    for name in ("m.gguf", "n.gguf", "../outside.gguf"):
        (folder / name).write_bytes(tiny_model.read_bytes())
    (folder / "outside.gguf").symlink_to("../outside.gguf")
    (folder / "page.gguf").write_text("<html>")
    for rule, text in BROKEN.items():
        (folder / f"{rule}.yaml").write_text(text, errors="surrogateescape")
    for rule, text in LOCKS.items():
        (folder / f"{rule}.lock").write_text(text)
    files = [f"{rule}.yaml" for rule in BROKEN]
    described: dict[str, str] = {}
    for options in ([], ["--packages", "debian"]):
        done = aikit_nix(
            "check", *files, "none.yaml", "old/none.yaml", "--format", "sarif", *options, cwd=folder, env=LATER
        )
        rules = json.loads(done.stdout)["runs"][0]["tool"]["driver"]["rules"]
        described |= {rule["id"]: rule["shortDescription"]["text"] for rule in rules}
    assert described == DESCRIPTIONS
    assert all(text.endswith(".") for text in described.values())
