"""Faithful to AIKit's versions, or different in a way that docs/aikitfile.md lists."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import aikit_versions as versions
from aikit_nix import plan
from aikit_nix.aikitfile import Aikitfile
from aikit_nix.compat import Escapes, resolve
from aikit_nix.errors import AikitError
from aikit_nix.parser import parse
from support.pins import pinned

ROOT = Path(__file__).resolve().parents[1]
SHA = "1" * 64
DASH = shutil.which("dash")
# The name of each divergence heads its row of the table in the docs.
DOCUMENTED = set(re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs/aikitfile.md").read_text(), re.MULTILINE))


def parse_text(text: str, escapes: Escapes = Escapes.AUTO) -> Aikitfile:
    return parse(text.encode(), "aikitfile.yaml", escapes)[0]


def with_models(more: str = "") -> str:
    return f"apiVersion: v1alpha1\nmodels:\n  - {{name: m, source: m.gguf}}\n{more}"


def codes(text: str) -> set[str]:
    """The codes of everything that is said about a text."""
    try:
        found = parse(text.encode(), "aikitfile.yaml")[1]
    except AikitError as failed:
        found = failed.diagnostics
    return {finding.code for finding in found}


@pytest.mark.parametrize("era", [versions.EARLY, versions.SHELL, versions.LATER])
@pytest.mark.parametrize("row", versions.TEXTS, ids=lambda row: row.what)
def test_a_text_is_what_that_aikit_wrote_or_a_documented_divergence(row: versions.TextRow, era: str) -> None:
    ours = resolve(row.text, row.kind, Escapes.AUTO).text
    assert ours == row.ours
    aikit = row.aikit(era)
    if aikit == ours.encode():
        return
    if era == versions.LATER:
        differs: str | None = "later-verbatim"
    elif era == versions.EARLY and row.shell == ours.encode():
        differs = "early-newline"
    else:
        differs = row.differs
    assert differs in DOCUMENTED


@pytest.mark.skipif(DASH is None, reason="dash is not installed")
@pytest.mark.parametrize("row", versions.TEXTS, ids=lambda row: row.what)
def test_the_table_is_what_dash_does(row: versions.TextRow) -> None:
    try:
        done = subprocess.run(
            [DASH or "dash", "-c", f'echo -n "{row.text}"'], capture_output=True, env={"PATH": ""}, check=False
        )
    except OSError:  # more than 128 KiB in one argument
        assert row.shell is versions.FAILS
        return
    if row.shell is versions.FAILS:
        assert done.returncode == 2
    else:
        assert done.stdout == row.shell


@pytest.mark.parametrize("row", versions.TEXTS, ids=lambda row: row.what)
def test_verbatim_is_what_aikit_writes_after_its_last_shell(row: versions.TextRow) -> None:
    assert resolve(row.text, row.kind, Escapes.VERBATIM).text.encode() == row.aikit(versions.LATER)


@pytest.mark.parametrize(
    "row",
    [row for row in versions.TEXTS if row.differs in (None, "well-formed") and row.shell is not None],
    ids=lambda row: row.what,
)
def test_shell_is_what_the_shell_wrote_wherever_it_destroyed_nothing(row: versions.TextRow) -> None:
    assert resolve(row.text, row.kind, Escapes.SHELL).text.encode() == row.shell


@pytest.mark.parametrize("row", versions.SOURCES, ids=lambda row: f"{row.source} as {row.name}")
def test_a_model_lands_where_aikit_put_it_or_a_documented_divergence(row: versions.SourceRow) -> None:
    text = f"apiVersion: v1alpha1\nmodels:\n  - {json.dumps({'name': row.name, 'source': row.source})}\n"
    try:
        ours: str | None = parse_text(text).models[0].path
    except AikitError as failed:
        ours = None
        assert {finding.code for finding in failed.diagnostics} <= {"source", "name", "sha256-checked"}
    assert ours == row.ours
    assert (row.differs in DOCUMENTED) if ours != row.aikit else row.differs is None


@pytest.mark.parametrize("source", versions.HF_URLS)
def test_a_hugging_face_source_is_fetched_from_aikits_address(source: str) -> None:
    text = f"apiVersion: v1alpha1\nmodels:\n  - {{name: m, source: '{source}', sha256: '{SHA}'}}\n"
    pin = parse_text(text).models[0].pin
    assert pin is not None
    assert pin.url == versions.HF_URLS[source]


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("config", [True, False])
def test_what_aikit_gave_as_arguments_is_in_the_environment(debug: bool, config: bool) -> None:
    text = with_models(f"debug: {str(debug).lower()}\n" + ("config: |\n  - name: m\n" if config else ""))
    planned, _ = plan.make(pinned(parse_text(text)), plan.Options())
    assert (planned.entrypoint, planned.cmd) == ((), ())
    assert planned.env == ({"DEBUG": "true"} if debug else {}) | ({"CONFIG_FILE": "/config.yaml"} if config else {})
    assert "arguments" in DOCUMENTED


@pytest.mark.usefixtures("nix")
def test_the_environment_is_aikits_for_each_runtime() -> None:
    done = subprocess.run(
        ["nix-instantiate", "--eval", "--strict", "--json", ROOT / "nix/runtimes.nix"], capture_output=True, check=True
    )
    ours = {runtime: said["env"] for runtime, said in json.loads(done.stdout).items()}
    assert ours["avx"] == ours["avx2"] == ours["avx512"] == {}
    aikit = {  # v0.9.0 to v0.21.0, without the second PATH
        "NVIDIA_REQUIRE_CUDA": "cuda>=12.0",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "BUILD_TYPE": "cublas",
        "LD_LIBRARY_PATH": "/usr/local/cuda/lib64",
    }
    assert {name for name in ours["cuda"] | aikit if ours["cuda"].get(name) != aikit.get(name)} == {"LD_LIBRARY_PATH"}
    assert "environment" in DOCUMENTED


@pytest.mark.parametrize(
    ("line", "debug"),
    [("", False), ("debug:", False), *((f"debug: {yes}", True) for yes in ("true", "yes", "on", "Yes", "ON"))],
)
def test_booleans_are_yaml_1_1(line: str, debug: bool) -> None:
    assert parse_text(with_models(line)).debug is debug


# Input, and the codes of what is said about it: an empty set is silence. The comments are AIKit's words.
SECTION_4 = {
    "empty": ("", {"no-api-version"}),  # apiVersion is not defined
    "no apiVersion": ("models: []", {"no-api-version", "no-models"}),
    "another apiVersion": (with_models().replace("v1alpha1", "v2"), {"api-version"}),  # … is not supported
    "no models": ("apiVersion: v1alpha1", {"no-models"}),  # no models defined, up to v0.12.2
    "a runner image": ("apiVersion: v1alpha1\nbackends: [llama-cpp]", {"no-models"}),  # accepted from v0.21.0
    "unknown keys": (with_models("colour: red\n"), {"unknown-key"}),  # ignored
    "keys are case-sensitive": (with_models("Debug: true\n"), {"unknown-key"}),  # ignored
    "double keys": (with_models("debug: no\ndebug: yes\n"), {"duplicate-key"}),  # the last counts
    "debug in quotes": (with_models('debug: "true"\n'), {"wrong-type"}),
    "debug as a number": (with_models("debug: 1\n"), {"wrong-type"}),
    "backends as a text": (with_models("backends: exllama\n"), {"wrong-type"}),  # no datasets defined
    "config as a map": (with_models("config: {a: b}\n"), {"wrong-type"}),
    "config as a list": (with_models("config: [a]\n"), {"wrong-type"}),
    "a byte order mark": ("\ufeff" + with_models(), set()),
    "Windows line ends": (with_models().replace("\n", "\r\n"), set()),
    "several documents": (with_models() + "---\nx: y\n", {"several-documents"}),  # the first counts
    "an anchor": (with_models("backends: &a [llama-cpp]\nloadToMemory: [m]\n"), set()),
    "unknown backend": (with_models("backends: [x]\n"), {"backend"}),  # backend x is not supported
    "unknown runtime": (with_models("runtime: x\n"), {"runtime"}),  # runtime x is not supported
    "an empty runtime": (with_models("runtime: ''\n"), set()),
    "runtimes of later versions": (with_models("runtime: applesilicon\n"), {"runtime"}),
    "mamba": (with_models("backends: [mamba]\n"), {"backend"}),
    "diffusers": (with_models("backends: [diffusers]\n"), {"backend"}),
    "vllm": (with_models("backends: [vllm]\n"), {"backend"}),
    "llama-cpp": (with_models("backends: [llama-cpp]\n"), set()),
    "two backends": (with_models("runtime: cuda\nbackends: [stablediffusion, exllama2]\n"), set()),
    "the same backend twice": (with_models("backends: [stablediffusion, stablediffusion]\n"), {"duplicate-backend"}),
    "fine-tuning": ("apiVersion: v1alpha1\nbaseModel: x\ndatasets: []\n", {"fine-tuning"}),
    "loadToMemory": (with_models("loadToMemory: [m]\n"), set()),
    "loadToMemory with a comma": (with_models("loadToMemory: ['a,b']\n"), {"load-to-memory"}),
    "loadToMemory with a backslash": (with_models("loadToMemory: ['a\\b']\n"), {"load-to-memory"}),
    "loadToMemory twice": (with_models("loadToMemory: [m, m]\n"), {"load-to-memory"}),
    "loadToMemory of nothing": (with_models("loadToMemory: ['']\n"), {"load-to-memory"}),
    "no source": ("apiVersion: v1alpha1\nmodels: [{name: m}]", {"no-source"}),  # the whole build context
    "an empty source": ("apiVersion: v1alpha1\nmodels: [{name: m, source: ''}]", {"source"}),
    "no name": ("apiVersion: v1alpha1\nmodels: [{source: m.gguf}]", {"no-name"}),
    "an empty template": (with_models().replace("}", ", promptTemplates: [{name: t}]}"), {"empty-template"}),
    "two models on one path": (
        "apiVersion: v1alpha1\nmodels: [{name: a, source: m.gguf}, {name: b, source: w/m.gguf}]",  # the last one
        {"collision"},
    ),
}


@pytest.mark.parametrize("what", SECTION_4)
def test_validation(what: str) -> None:
    text, expected = SECTION_4[what]
    assert codes(text) == expected


@pytest.mark.parametrize("text", ["name: 1e3", "name: yes", "name: 0x10", "name: '1'", "name: 2001-01-01"])
def test_scalars_of_any_type_are_their_letters(text: str) -> None:
    parsed = parse_text(f"apiVersion: v1alpha1\nmodels:\n  - {text}\n    source: m.gguf\n")
    assert parsed.models[0].name.value == text.removeprefix("name: ").strip("'")


def test_anchors_and_merges() -> None:
    parsed = parse_text(
        "apiVersion: v1alpha1\nmodels:\n"
        "  - &base {name: a, source: a.gguf, promptTemplates: [{name: t, template: '{{.Input}}'}]}\n"
        "  - {<<: *base, name: b, source: b.gguf, promptTemplates: [{name: u, template: x}]}\n"
    )
    assert [(model.name.value, model.path, model.prompt_templates[0].path) for model in parsed.models] == [
        ("a", "/models/a.gguf", "/models/t.tmpl"),
        ("b", "/models/b.gguf", "/models/u.tmpl"),
    ]


def test_the_spec_pages_example_in_every_reading() -> None:
    data = (ROOT / "tests/fixtures/spec-example.yaml").read_bytes()

    def facts(escapes: Escapes) -> list[tuple[int, str]]:
        parsed, _ = parse(data, "aikitfile.yaml", escapes)
        assert parsed.config is not None
        texts = [parsed.models[0].prompt_templates[0].template.value, parsed.config.value]
        return [(len(text.encode()), hashlib.sha256(text.encode()).hexdigest()[:12]) for text in texts]

    assert facts(Escapes.AUTO) == facts(Escapes.SHELL) == [(214, "22b1748764bd"), (520, "f36eda671ef5")]
    assert [length for length, _ in facts(Escapes.VERBATIM)] == [218, 530]
