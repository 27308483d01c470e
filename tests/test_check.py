"""`aikit-nix check` and `explain` as a user runs them, and how findings are shown."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aikit_nix import check as check_module
from aikit_nix import render, rules, yamltree
from aikit_nix.errors import AikitError, Diagnostic, Position, Severity
from aikit_nix.parser import parse
from support.command import aikit_nix

HEAD = "apiVersion: v1alpha1\n"
MODEL = "models:\n  - name: m\n    source: m.gguf\n"
FIXTURES = Path(__file__).parent / "fixtures"
# the two have different texts
TEMPLATES = "    promptTemplates: [{{name: {}, template: x}}, {{name: {}, template: y}}]\n"


def write(folder: Path, text: str, name: str = "aikitfile.yaml") -> Path:
    path = folder / name
    path.write_text(text, newline="")
    return path


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    (tmp_path / "m.gguf").write_bytes(tiny_model.read_bytes())
    return tmp_path


def test_a_good_file_says_so(folder: Path) -> None:
    write(folder, HEAD + MODEL)
    done = aikit_nix("check", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "aikitfile.yaml: no mistakes found\n", "")


def test_all_errors_of_all_files_at_once(folder: Path) -> None:
    write(
        folder,
        "apiVersion: v2\nruntime: avx3\nbackends: [exlama2]\nmodels:\n  - name: ../m\n    source: ftp://h/x\n",
        "a",
    )
    write(folder, HEAD + "debug: 'true'\n" + MODEL, "b")
    done = aikit_nix("check", "a", "b", cwd=folder)
    assert done.returncode == 1
    places = [line.split(": ")[1] for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert places == ["a:1:13", "a:2:10", "a:3:12", "a:5:11", "a:6:13", "b:2:8"]
    assert done.stdout == "2 files: 6 errors\n"


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        (HEAD + MODEL + "backend: [x]\n", "5:1", "did you mean `backends`?"),
        (HEAD + MODEL + "Debug: true\n", "5:1", "did you mean `debug`?"),
        (HEAD + MODEL + "runtime: CUDA\n", "5:10", "did you mean `cuda`?"),
        (HEAD + MODEL + "config: |\n  - name: m\n    backend: exllama2\n", "7:14", "the image has no backend `exllama2`"),
        (HEAD + MODEL + "config: |\n  - name: m\n    backend: lama-cpp\n", "7:14", "did you mean `llama-cpp`?"),
        (HEAD + MODEL + "config: |\n  - name: m\n    template:\n      chat: nix\n", "8:13", "no template is called"),
        (HEAD + MODEL + "config: |\n  - name: m\n   x: 1\n", "7:4", "cannot read this config"),
        (HEAD + MODEL + "config: hello\n", "5:9", "not a list of model configurations"),
        (HEAD + MODEL + "backends: [exllama2]\n", "5:12", "Use a GGUF of the model"),
        (HEAD + MODEL + "loadToMemory: [mm]\n", "5:16", "did you mean `m`?"),
        (HEAD + MODEL + "config: |\n  - parameters:\n      model: https://h/x\n", "7:14", "would be downloaded"),
        (HEAD + MODEL + "config: |\n  - name: m\n    context_size: 999999\n    parameters: {model: m.gguf}\n", "7:19", "4096 tokens"),
        (HEAD + MODEL + "config: |\n  - template:\n      chat: |\n        {{if}\n", "8:11", "not a Go template"),
        (HEAD + MODEL + 'config: |\n  - template:\n      chat: |\n        {{if eq .R \\"a\\"}}a{{end}}{{"b}}\n', "8:37", "does not end"),
        (HEAD + MODEL + "    promptTemplates: [{name: t, template: x}]\n", "5:30", "nothing uses the template `t`"),
        (HEAD + MODEL + "    sha256: " + "1" * 64 + "\n", "5:13", "here it is checked"),
        (HEAD + MODEL.replace("m.gguf", "n.gguf"), "4:13", "source 'n.gguf' does not exist"),
        (HEAD + MODEL.replace("m.gguf", "."), "4:13", "own folder"),
        (HEAD + MODEL.replace("m.gguf", "aikitfile.yaml/x"), "4:13", "cannot be read: not a directory"),
        (HEAD + MODEL + TEMPLATES.format("a/b", "a/./b"), "5:56", "the template lands on /models/a/b.tmpl, as the template on line 5 does"),
        (HEAD + MODEL.replace("m.gguf", "m.tmpl") + TEMPLATES.format("x", "./m"), "5:54", "the template lands on /models/m.tmpl, as the model on line 4 does"),
        ("a: b: c\n", "1:5", "a value that holds `: ` needs quotes"),
        ("a:\n\tb: 1\n", "2:1", "not with tabs"),
        ("a: @b\n", "1:4", "special character"),
        ('a: 1\nb: "x\n', "2:4", "end of stream"),
        ("a: *b\n", "1:4", "no anchor &b"),
        ("&a [*a]\n", "1:5", "inside of what it stands for"),
        ("a: !!python/object:os.system x\n", "1:4", "YAML tag"),
        ("[" * 500, "1:65", "levels of nesting"),
        ("[" * 100_000, None, "levels of nesting"),  # libyaml itself refuses it since 0.2.6, at the 1000th
        ("- " * 100_000, "1:129", "levels of nesting"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)), None, "all aliases counted"),
    ],
)  # fmt: skip
def test_what_is_found_and_where(folder: Path, text: str, place: str | None, says: str) -> None:
    write(folder, text)
    done = aikit_nix("check", cwd=folder)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    if place:
        assert any(f" aikitfile.yaml:{place}: " in line and says in line for line in done.stderr.splitlines()), (
            done.stderr
        )


SECOND = "config: |\n  - name: a\n    parameters: {model: m.gguf}\n  - name: b\n    parameters: {model: m.gguf}\n"


@pytest.mark.parametrize(
    ("more", "options", "place"),
    [
        ("    context_size: [1, 2]\n", [], "10:19"),
        ("    context_size: [1, 2]\n", ["--packages", "debian"], "10:19"),
        ("    threads: 0x" + "f" * 5000 + "\n", [], "10:14"),
        ("    chat_template_kwargs: {a: .nan}\n", ["--engine", "llama-server"], "10:27"),
        ("    mmproj: n.gguf\n", ["--packages", "debian"], "10:13"),
        ("  - name: b\n    parameters: {model: m.gguf}\n", ["--packages", "debian"], "10:5"),
        ('  - name: "x\\0y"\n', [], "10:11"),
        ("  - {\n", [], "11:1"),
    ],
)
def test_check_and_gen_refuse_the_same_at_the_same_place(
    folder: Path, more: str, options: list[str], place: str
) -> None:
    write(folder, HEAD + MODEL + SECOND + more)
    checked = aikit_nix("check", *options, cwd=folder)
    generated = aikit_nix("gen", "-o", "flake", *options, cwd=folder)
    for done in (checked, generated):
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert f"error: aikitfile.yaml:{place}: " in done.stderr
    assert not (folder / "flake").exists()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"apiVersion: \xff\n", "1:13: byte 0xff is not UTF-8"),
        (b"a: 1\nb: \xe9\n", "2:4: byte 0xe9 is not UTF-8"),
        (b"a: x\0y\n", "1:5: the character U+0000 may not stand in YAML"),
        ("ä: x\x01y\n".encode(), "1:5: the character U+0001 may not stand in YAML"),
        (b'a: "\\ud800"\n', "invalid Unicode character escape"),
        ((HEAD + MODEL + 'config: "a\\0b"\n').encode(), "5:9: config holds the character U+0000"),
        (
            (HEAD + MODEL.replace("name: m", 'name: "a\\0b"')).encode(),
            "3:11: the model's name holds the character U+0000",
        ),
        (
            (HEAD + MODEL.replace("name: m", 'name: "a\\eb"')).encode(),
            "3:11: the model's name holds the character U+001B",
        ),
        (b"\xff\xfea\0", "an aikitfile is a mapping"),
        (b"x" * (17 << 20), "more than 16777216 bytes"),
    ],
)
def test_bytes_that_are_no_aikitfile(folder: Path, data: bytes, says: str) -> None:
    (folder / "aikitfile.yaml").write_bytes(data)
    done = aikit_nix("check", cwd=folder)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert says in done.stderr


def test_without_libyaml_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamltree, "_Loader", yaml.SafeLoader)
    assert parse((HEAD + MODEL).encode(), "f")[0].models[0].path == "/models/m.gguf"
    for bad in ('config: "\\ud800"', "[" * 100_000, "config: {a", "config: \x01"):
        with pytest.raises(AikitError):
            parse((HEAD + MODEL + bad).encode(), "f")


def test_utf_16_with_a_byte_order_mark_is_read(folder: Path) -> None:
    (folder / "aikitfile.yaml").write_bytes((HEAD + MODEL).encode("utf-16"))
    assert aikit_nix("check", cwd=folder).returncode == 0


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\nb"])
def test_a_file_that_cannot_be_read(folder: Path, name: str) -> None:
    done = aikit_nix("check", name, cwd=folder)
    assert done.returncode == (2 if name == "." else 1)
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_warnings_fail_only_when_asked(folder: Path) -> None:
    write(folder, HEAD + MODEL + "colour: red\n")
    assert aikit_nix("check", cwd=folder).returncode == 0
    assert aikit_nix("check", "--strict", cwd=folder).returncode == 1


def test_json(folder: Path) -> None:
    write(folder, HEAD + MODEL + "colour: red\nruntime: avx9\n")
    done = aikit_nix("check", "--format", "json", cwd=folder)
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr, report["errors"], report["warnings"]) == (1, "", 1, 1)
    assert report["diagnostics"][0] == {
        "severity": "warning",
        "code": "unknown-key",
        "message": "`colour` is not a key of an aikitfile: ignored, as by AIKit",
        "file": "aikitfile.yaml",
        "line": 5,
        "column": 1,
    }


def test_sarif(folder: Path) -> None:
    (folder / "my files").mkdir()
    write(folder / "my files", HEAD + MODEL + "runtime: avx9\n")
    done = aikit_nix("check", "--format", "sarif", "my files/aikitfile.yaml", "none.yaml", cwd=folder)
    log = json.loads(done.stdout)
    assert log["version"] == "2.1.0"
    run = log["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
    place = next(result for result in run["results"] if result["ruleId"] == "runtime")["locations"][0][
        "physicalLocation"
    ]
    assert place == {
        "artifactLocation": {"uri": "my%20files/aikitfile.yaml"},
        "region": {"startLine": 5, "startColumn": 10},
    }
    assert [result["locations"] for result in run["results"] if result["ruleId"] == "unreadable"] == [[]]


def on_a_terminal(folder: Path, **env: str) -> str:
    """What check writes to stderr when that is a terminal."""
    leader, follower = pty.openpty()
    argv = [sys.executable, "-m", "aikit_nix.cli", "check"]
    environment = {**{name: value for name, value in os.environ.items() if name != "NO_COLOR"}, "TERM": "xterm", **env}
    subprocess.run(argv, cwd=folder, stderr=follower, stdout=subprocess.DEVNULL, env=environment, check=False)
    os.close(follower)
    try:
        return os.read(leader, 65536).decode()
    finally:
        os.close(leader)


def test_colour_on_a_terminal_only_and_not_with_no_color(folder: Path) -> None:
    write(folder, HEAD + MODEL + "runtime: avx9\n")
    assert "\x1b[31m\x1b[1merror" in on_a_terminal(folder)
    assert "\x1b" not in on_a_terminal(folder, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(folder, TERM="dumb")
    assert "\x1b" not in aikit_nix("check", cwd=folder).stderr


@pytest.mark.parametrize(
    ("line", "column", "shown", "marks"),
    [
        ("abc def ghi", 5, "abc def ghi", "    ^^^"),
        ("日本 x", 4, "日本 x", "     ^"),
        ("a\x1b[31mb c", 9, "a\ufffd[31mb c", "        ^"),
        ("a\u202eb", 1, "a\ufffdb", "^^^"),
        ("abc", 9, "abc", "   ^"),
        ("x" * 300, 1, "x" * 100 + "…", "^" * 100),
    ],
)
def test_the_line_and_its_carets(line: str, column: int, shown: str, marks: str) -> None:
    text = render.text([Diagnostic(Severity.ERROR, "x", "message", Position("f", 1, column, f"{line}\n"))])
    assert text.split("\n")[1:] == [f"     1 | {shown}", f"       | {marks}", ""]


def test_explain(folder: Path) -> None:
    write(
        folder,
        HEAD + MODEL + 'config: |\n  - name: chat\n    parameters: {model: m.gguf}\n    system_prompt: \\"hi\\"\n',
    )
    done = aikit_nix("explain", "--packages", "debian", cwd=folder)
    assert done.returncode == 0, done.stderr
    for part in ("/models/m.gguf, a layer of its own", "llama, 4096 tokens", "serves  chat from /models/m.gguf"):
        assert part in done.stdout
    assert '  |   system_prompt: "hi"' in done.stdout
    assert "escapes undone: 2 backslashes fewer than written" in done.stdout
    assert "on x86_64-linux (others: cpu, avx2, avx512, cuda, vulkan, rocm)\n" in done.stdout
    assert "on aarch64-linux (others: cuda, vulkan)\n" in done.stdout


def test_explain_says_what_is_not_in_debian_proper(folder: Path) -> None:
    write(folder, HEAD + MODEL + "runtime: cuda\n")
    done = aikit_nix("explain", "--packages", "debian", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("contrib: libggml0-backend-cuda\n") == 2
    assert done.stdout.count("non-free: libcublas12, libcublaslt12, libcudart12\n") == 2
    done = aikit_nix("explain", "--packages", "debian", "--runtime", "vulkan", cwd=folder)
    assert "for x86_64-linux, " in done.stdout
    assert "non-free" not in done.stdout


def test_explain_refuses_what_gen_refuses(folder: Path) -> None:
    write(folder, HEAD + MODEL + "runtime: rocm\n")
    done = aikit_nix("explain", cwd=folder)
    assert done.returncode == 1
    assert done.stderr.startswith("error: aikitfile.yaml:5:10: ")


def test_the_schema_is_the_published_one_and_takes_the_spec_pages_example() -> None:
    jsonschema = pytest.importorskip("jsonschema")

    published = FIXTURES.parents[1] / "schema/aikitfile.schema.json"
    done = aikit_nix("schema", cwd=published.parent)
    assert done.stdout == published.read_text()
    schema = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(yaml.safe_load((FIXTURES / "spec-example.yaml").read_text()))
    for wrong in ("runtime: avx9", "colour: red", "models: []", "models: [{name: m}]"):
        assert not validator.is_valid(yaml.safe_load(HEAD + wrong + ("" if "models" in wrong else "\n" + MODEL)))


def test_every_rule_that_a_finding_of_these_tests_has_is_described() -> None:
    assert all(text.endswith(".") for text in rules.DESCRIPTIONS.values())
    source = Path(check_module.__file__).parent
    texts = [
        file.read_text()
        for name in ("parser", "review", "yamltree", "check", "lock")
        for file in [source / f"{name}.py"]
    ]
    used = {code for text in texts for code in re.findall(r'(?:error|warn|_warning|_error)\(\s*"([a-z0-9-]+)"', text)}
    assert len(used) > 20
    assert used <= set(rules.DESCRIPTIONS)
