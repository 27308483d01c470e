r"""What AIKit's versions made of an input, what aikit-nix makes of it, and the divergence in docs/aikitfile.md where the two differ.

The eras of section 2: EARLY is v0.1.0 to v0.5.1, SHELL is v0.5.2 to v0.21.0, LATER is what follows v0.21.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from aikit_nix.aikitfile.escapes import Kind

# The name of each divergence heads its row of the table in the docs.
_DOCS = Path(__file__).resolve().parents[2] / "docs/aikitfile.md"
DOCUMENTED = frozenset(re.findall(r"^\| `([a-z0-9-]+)` \|", _DOCS.read_text(), re.MULTILINE))

EARLY, SHELL, LATER = "v0.1.0-v0.5.1", "v0.5.2-v0.21.0", "after v0.21.0"
FAILS = None  # AIKit's build failed


@dataclass(frozen=True)
class TextRow:
    """A template or config. `shell` is what dash's `echo -n` made of it; `ours` what `auto` makes of it."""

    what: str
    text: str
    shell: bytes | None
    ours: str
    differs: str | None = None  # from the shell
    kind: Kind = "template"

    def aikit(self, era: str) -> bytes | None:
        if era == LATER:
            return self.text.encode()
        if self.shell is None or era == SHELL:
            return self.shell
        return b"" if self.text == "-n" else self.shell + b"\n"


_IF = '{{if eq .RoleName \\"assistant\\"}}'
_IF_DONE = '{{if eq .RoleName "assistant"}}'

TEXTS = (
    TextRow("plain", "{{.Input}}\n", b"{{.Input}}\n", "{{.Input}}\n"),
    TextRow("no newline at the end", "{{.Input}}", b"{{.Input}}", "{{.Input}}"),
    TextRow("newlines at the end", "{{.Input}}\n\n\n", b"{{.Input}}\n\n\n", "{{.Input}}\n\n\n"),
    TextRow(
        "per cent and UTF-8", "100 % ü 日本 {{.Input}}", "100 % ü 日本 {{.Input}}".encode(), "100 % ü 日本 {{.Input}}"
    ),
    TextRow("escaped quotes", _IF + "x{{end}}", (_IF_DONE + "x{{end}}").encode(), _IF_DONE + "x{{end}}"),
    TextRow(
        "escaped quotes and \\n", _IF + "a\\nb{{end}}", (_IF_DONE + "a\nb{{end}}").encode(), _IF_DONE + "a\nb{{end}}"
    ),
    TextRow(
        "escaped quotes and \\\\n",
        _IF + "a\\\\nb{{end}}",
        (_IF_DONE + "a\nb{{end}}").encode(),
        _IF_DONE + "a\nb{{end}}",
    ),
    TextRow(
        "four backslashes", _IF + "a\\\\\\\\nb{{end}}", (_IF_DONE + "a\\nb{{end}}").encode(), _IF_DONE + "a\\nb{{end}}"
    ),
    TextRow(
        "every escape of echo",
        _IF + "\\t\\r\\a\\b\\f\\v\\e\\0101\\0303\\0251{{end}}",
        (_IF_DONE + "\t\r\a\b\f\v\x1bA\u00e9{{end}}").encode(),
        _IF_DONE + "\t\r\a\b\f\v\x1bA\u00e9{{end}}",
    ),
    TextRow(
        "escapes that echo does not know",
        _IF + "\\{ \\w \\d \\x41 \\q{{end}}",
        (_IF_DONE + "\\{ \\w \\d \\x41 \\q{{end}}").encode(),
        _IF_DONE + "\\{ \\w \\d \\x41 \\q{{end}}",
    ),
    TextRow("a joined line", _IF + "a\\\nb{{end}}", (_IF_DONE + "ab{{end}}").encode(), _IF_DONE + "ab{{end}}"),
    TextRow("an escaped dollar", _IF + "\\$x{{end}}", (_IF_DONE + "$x{{end}}").encode(), _IF_DONE + "$x{{end}}"),
    TextRow(
        "an escaped backquote", _IF + "\\`x\\`{{end}}", (_IF_DONE + "`x`{{end}}").encode(), _IF_DONE + "`x`{{end}}"
    ),
    # What is well-formed as written stays.
    TextRow("\\n, well-formed", "a\\nb {{.Input}}", b"a\nb {{.Input}}", "a\\nb {{.Input}}", "well-formed"),
    TextRow(
        '\\" outside of actions',
        'say \\"hi\\" {{.Input}}',
        b'say "hi" {{.Input}}',
        'say \\"hi\\" {{.Input}}',
        "well-formed",
    ),
    TextRow("an escaped dollar, well-formed", "\\$x {{.Input}}", b"$x {{.Input}}", "\\$x {{.Input}}", "well-formed"),
    TextRow(
        "llama-3.1's function template",
        '<f>{{`{{\\"example_name\\": 1}}`}}</f>',
        b"<f>{{}}</f>",
        '<f>{{`{{\\"example_name\\": 1}}`}}</f>',
        "expansion",
    ),
    # What the shell destroyed is kept.
    TextRow(
        "a variable",
        "{{range $i, $t := .Types}}{{$i}}{{end}}",
        b"{{range ,  := .Types}}{{}}{{end}}",
        "{{range $i, $t := .Types}}{{$i}}{{end}}",
        "expansion",
    ),
    TextRow(
        "a variable and escaped quotes",
        "{{$i}}" + _IF + "x{{end}}",
        ("{{}}" + _IF_DONE + "x{{end}}").encode(),
        "{{$i}}" + _IF_DONE + "x{{end}}",
        "expansion",
    ),
    TextRow("backquotes", "{{`x`}}", b"{{}}", "{{`x`}}", "expansion"),
    TextRow("a command", "$(echo pwned) {{.Input}}", b"pwned {{.Input}}", "$(echo pwned) {{.Input}}", "expansion"),
    TextRow(
        "bare quotes",
        '{{if eq .RoleName "system"}}x{{end}}',
        b"{{if eq .RoleName system}}x{{end}}",
        '{{if eq .RoleName "system"}}x{{end}}',
        "bare-quotes",
    ),
    TextRow("white space between bare quotes", 'a "b   c" d', b"a b c d", 'a "b   c" d', "bare-quotes"),
    TextRow("an odd number of bare quotes", 'say "hi {{.Input}}', FAILS, 'say "hi {{.Input}}', "bare-quotes"),
    TextRow("a backslash at the end", "{{.Input}}\\", FAILS, "{{.Input}}\\", "bare-quotes"),
    TextRow("\\c", _IF + "x\\cy{{end}}", (_IF_DONE + "x").encode(), _IF_DONE + "x\\cy{{end}}", "cut"),
    TextRow(
        "a byte that is no UTF-8",
        _IF + "\\0377{{end}}",
        _IF_DONE.encode() + b"\xff{{end}}",
        _IF_DONE + "\\0377{{end}}",
        "bytes",
    ),
    TextRow("a NUL", _IF + "\\00{{end}}", (_IF_DONE + "\0{{end}}").encode(), _IF_DONE + "\\00{{end}}", "bytes"),
    TextRow("more than 128 KiB", "x" * 140_000, FAILS, "x" * 140_000, "long"),
    # Configs
    TextRow(
        "a config with bare scalars",
        "- name: a\n  mmap: true\n",
        b"- name: a\n  mmap: true\n",
        "- name: a\n  mmap: true\n",
        kind="config",
    ),
    TextRow("a config with escaped quotes", '- name: \\"a\\"\n', b'- name: "a"\n', '- name: "a"\n', kind="config"),
    TextRow(
        "a template in a config",
        '- template:\n    chat: |\n      {{if eq .R \\"a\\"}}x{{end}}\n',
        b'- template:\n    chat: |\n      {{if eq .R "a"}}x{{end}}\n',
        '- template:\n    chat: |\n      {{if eq .R "a"}}x{{end}}\n',
        kind="config",
    ),
    TextRow(
        "phi-2's trimsuffix",
        "- trimsuffix:\n  - '\\\\\\\\n'\n",
        b"- trimsuffix:\n  - '\\n'\n",
        "- trimsuffix:\n  - '\\n'\n",
        kind="config",
    ),
    TextRow(
        "a regular expression",
        '- a: \\"b\\"\n  r: (?P<n>\\w+)\n',
        b'- a: "b"\n  r: (?P<n>\\w+)\n',
        '- a: "b"\n  r: (?P<n>\\w+)\n',
        kind="config",
    ),
    TextRow(
        "llama-3.1's config of v0.21.0",
        '- r: "(?s)\\\\{.*\\\\}"\n  chat: \\"chat\\"\n',
        FAILS,
        '- r: "(?s)\\\\{.*\\\\}"\n  chat: "chat"\n',
        "bare-quotes",
        kind="config",
    ),
    TextRow(
        "bare quotes in a config", '- model: "x"\n', b"- model: x\n", '- model: "x"\n', "bare-quotes", kind="config"
    ),
    TextRow("YAML's own escapes", '- a: "b\\nc"\n', b"- a: bnc\n", '- a: "b\\nc"\n', "bare-quotes", kind="config"),
)


@dataclass(frozen=True)
class SourceRow:
    """Where a model's file lands, by AIKit v0.11 and later, and here; None where it is refused."""

    source: str
    name: str
    aikit: str | None
    ours: str | None
    differs: str | None = None


SOURCES = (
    SourceRow("https://h.example/d/m.gguf?download=true#x", "m", "/models/m.gguf", "/models/m.gguf"),
    SourceRow("http://h.example/m.gguf", "m", "/models/m.gguf", "/models/m.gguf"),
    SourceRow("https://h.example/my%20model.gguf", "m", "/models/my model.gguf", "/models/my model.gguf"),
    SourceRow("https://h.example/sub%2Fm.gguf", "m", "/models/m.gguf", "/models/m.gguf"),
    SourceRow("https://h.example/d/m.gguf/", "m", "/models/m.gguf", "/models/m.gguf"),
    SourceRow("https://h.example", "m", "/models/.", None, "refused-source"),
    SourceRow("https://h.example/%zz.gguf", "m", None, None),
    SourceRow("HTTPS://h.example/m.gguf", "m", None, "/models/m.gguf", "scheme-case"),
    SourceRow("https://h.example/m.gguf", "a/b/c", "/models/a/b/m.gguf", "/models/a/b/m.gguf"),
    SourceRow("https://h.example/m.gguf", "a/b/", "/models/a/b/m.gguf", "/models/a/b/m.gguf"),
    SourceRow("https://h.example/m.gguf", "../x", "/m.gguf", None, "refused-name"),
    SourceRow("https://h.example/..", "m", "/models", None, "refused-source"),
    SourceRow("https://h.example/a%0Ab", "m", "/models/a\nb", None, "refused-source"),
    SourceRow("w/m.gguf", "m", "/models/m.gguf", "/models/m.gguf"),
    SourceRow("w/m.gguf", "a/b", "/models/m.gguf", "/models/m.gguf"),
    SourceRow("./m.gguf", "m", "/models/m.gguf", "/models/m.gguf"),
    SourceRow("*.gguf", "m", "/models/*.gguf", "/models/*.gguf"),
    SourceRow("w/", "m", "/models/w", "/models/w"),
    SourceRow("../../x", "m", "/models/x", None, "refused-source"),
    SourceRow("/x", "m", None, None),
    SourceRow("file:///x", "m", None, None),
    SourceRow("ftp://h/x", "m", None, None),
    SourceRow("s3://b/x", "m", None, None),
    SourceRow("weird:name", "m", None, None),
    SourceRow("huggingface://ns/repo/f.gguf", "m", "/models/f.gguf", "/models/f.gguf"),
    SourceRow("huggingface://ns/repo/f.gguf", "a/b", "/models/f.gguf", "/models/f.gguf"),
    SourceRow("huggingface://ns/repo/branch/f.gguf", "m", "/models/f.gguf", "/models/f.gguf"),
    SourceRow(
        "huggingface://ns/repo/f.gguf?download=true",
        "m",
        "/models/f.gguf?download=true",
        "/models/f.gguf",
        "huggingface-query",
    ),
    SourceRow("huggingface://ns/repo/a/b/c.gguf", "m", "/models/a", None, "refused-source"),
    SourceRow("huggingface://ns/repo", "m", "/models/ns/repo", "/models/ns/repo"),
    SourceRow("huggingface://ns/repo@rev/f.gguf", "m", None, None),
    SourceRow("oci://registry.ollama.ai/library/llama3.2:1b", "m", "/models/llama3.2", "/models/llama3.2"),
    SourceRow("https://user:secret@h.example/m.gguf", "m", "/models/m.gguf", None, "refused-source"),
)
HF_URLS = {
    "huggingface://ns/repo/f.gguf": "https://huggingface.co/ns/repo/resolve/main/f.gguf",
    "huggingface://ns/repo/branch/f.gguf": "https://huggingface.co/ns/repo/resolve/branch/f.gguf",
}
