"""The aikitfile's `config`: LocalAI's model configurations, read once for all that ask.

LocalAI reads them with yaml.v3 and does not start where that fails. So what it could not read is an error here, at its line; unknown keys are
ignored there. Values are read off the YAML tree and never made into Python objects that an aikitfile chose: numbers and
texts have bounds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from aikit_nix.aikitfile import goyaml, yamltree
from aikit_nix.aikitfile.innertext import Text
from aikit_nix.aikitfile.localai_keys import KINDS, Kind
from aikit_nix.aikitfile.reader import Odd, Pair, describe, merged, short
from aikit_nix.aikitfile.types import Aikitfile
from aikit_nix.aikitfile.yamltree import Node
from aikit_nix.base.errors import AikitError, Diagnostic, Position, Severity
from aikit_nix.base.redact import printable
from aikit_nix.sources.role import Role

# What Linux takes for one argument of a program (MAX_ARG_STRLEN) is 128 KiB.
MOST_CHARACTERS = 100_000


# How a config names the backend llama-cpp; the empty name is none.
LLAMA_CPP = frozenset({"", "llama", "llama-cpp", "llama-cpp-fallback", "llama-stable"})
# The keys below `template:` whose value is a template's name or the template itself.
TEMPLATES = ("chat", "chat_message", "completion", "edit", "function", "multimodal")
_PATHS = ("backend", "mmproj", "parameters.model")
# The keys that name a file below /models, and what it must be where that is known
FILES: Mapping[str, frozenset[Role] | None] = {
    "parameters.model": frozenset((Role.MODEL,)),
    "mmproj": frozenset((Role.PROJECTOR,)),
    "draft_model": frozenset((Role.MODEL, Role.DRAFT)),
    "lora_adapter": None,
    "lora_adapters": None,
}
# Those of LocalAI's stablediffusion, among `options`
_OPTION_FILES = ("diffusion_model", "high_noise_diffusion_model")
# Maps whose keys stand in `Entry.values` by themselves.
_OPENED = ("parameters", "template", "reasoning", "function", "function.grammar")


@dataclass(frozen=True)
class ConfigValue:
    """One value: its dotted key (`parameters.model`), its node in the config's text, and its place in the aikitfile.

    The methods that read it raise AikitError, with that place, where it is something else.
    """

    key: str
    node: Node
    at: Position

    @property
    def is_empty(self) -> bool:
        """Whether it is an empty text, list or map."""
        node = self.node
        return not (node.text if node.kind == "scalar" else node.items or node.pairs)

    def plain(self, text: str) -> ConfigValue:
        """The value with another text, read as a plain scalar."""
        return replace(self, node=replace(self.node, text=text, style=None, tag=None))

    def items(self) -> tuple[ConfigValue, ...]:
        """The values of a list."""
        if self.node.kind != "sequence":
            raise self.wrong(Kind.TEXTS)
        return tuple(replace(self, node=item) for item in self.node.items)

    def text(self) -> str:
        """A scalar of any type, as it was written."""
        if self.node.kind != "scalar":
            raise self.wrong(Kind.TEXT)
        return _plain(self, self.node)

    def boolean(self) -> bool:
        """True or false; the words of YAML 1.1 count too, quoted or not, as in yaml.v3."""
        found = goyaml.boolean(self.node)
        if found is None and self.key.startswith("options."):  # as grpc-server.cpp reads them
            found = {"1": True, "enabled": True, "0": False, "disabled": False}.get(self.node.text)
        if found is None:
            raise self.wrong(Kind.BOOLEAN)
        return found

    def number(self) -> int | float:
        """A finite number."""
        number = goyaml.number(self.node)
        if number is None:
            raise self.wrong(Kind.NUMBER)
        return number

    def integer(self) -> int:
        """A whole number of 64 bits; of another number its whole part, as in yaml.v3."""
        number = goyaml.number(self.node)
        if number is None or not -(2**63) <= number < 2**63:
            raise self.wrong(Kind.INTEGER)
        return int(number)

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        if self.node.kind != "sequence" or any(item.kind != "scalar" for item in self.node.items):
            raise self.wrong(Kind.TEXTS)
        return tuple(_plain(self, item) for item in self.node.items if not item.is_null)

    def numbers(self) -> list[int | float]:
        """A list of numbers."""
        numbers = [goyaml.number(item) for item in self.node.items]
        if self.node.kind != "sequence" or None in numbers:
            raise self.wrong(Kind.NUMBERS)
        return [number for number in numbers if number is not None]

    def number_map(self) -> Mapping[str, int | float]:
        """A map from texts to numbers."""
        if self.node.kind != "mapping":
            raise self.wrong(Kind.NUMBER_MAP)
        numbers = {key.text: goyaml.number(number) for key, number in self.pairs()}
        if None in numbers.values():
            raise self.wrong(Kind.NUMBER_MAP)
        return {key: number for key, number in numbers.items() if number is not None}

    def text_map(self) -> Mapping[str, str]:
        """A map from texts to texts."""
        if self.node.kind != "mapping" or any(value.kind != "scalar" for pair in self.pairs() for value in pair):
            raise self.wrong(Kind.TEXT_MAP)
        return {_plain(self, key): "" if value.is_null else _plain(self, value) for key, value in self.pairs()}

    def json(self) -> str:
        """A map as one line of JSON. A date is the text that it was written as; NaN and infinity are refused."""
        self.require_map()
        try:
            return json.dumps(goyaml.as_json(self.node, MOST_CHARACTERS), ensure_ascii=False)
        except goyaml.UnsaidError as problem:
            raise self.error(str(problem)) from None

    def require_map(self) -> None:
        """A map of anything."""
        if self.node.kind != "mapping":
            raise self.wrong(Kind.MAP)

    def pairs(self) -> list[tuple[Node, Node]]:
        """The keys and values of a map, with what `<<` merges into it; those that are null are none."""
        try:
            return [pair for pair in goyaml.merged(self.node) if not pair[0].is_null]
        except goyaml.UnsaidError as problem:
            raise self.error(str(problem)) from None

    def check(self) -> None:
        """Raise AikitError where LocalAI could not read the value."""
        if kind := KINDS.get(self.key):
            _READERS[kind](self)

    def wrong(self, kind: Kind) -> AikitError:
        """The error that this is no value of that kind."""
        return self.error(f"must be {kind.value}, not {describe(self.node)}")

    def error(self, message: str) -> AikitError:
        """An error about this value."""
        return AikitError(_error(f"config: {self.key} {message}", self.at, "config-type"))


_READERS: Mapping[Kind, Callable[[ConfigValue], object]] = {
    Kind.INTEGER: ConfigValue.integer,
    Kind.NUMBER: ConfigValue.number,
    Kind.BOOLEAN: ConfigValue.boolean,
    Kind.TEXT: ConfigValue.text,
    Kind.TEXTS: ConfigValue.texts,
    Kind.TEXT_MAP: ConfigValue.text_map,
    Kind.NUMBERS: ConfigValue.numbers,
    Kind.NUMBER_MAP: ConfigValue.number_map,
    Kind.MAP: ConfigValue.require_map,
}


@dataclass(frozen=True)
class ConfigEntry:
    """One model configuration: its values by dotted key, nulls left out."""

    at: Position
    values: Mapping[str, ConfigValue]

    @property
    def name(self) -> str:
        """The model's name in the API; empty where it has none."""
        return self.words("name")

    def words(self, key: str) -> str:
        """The text of a key; empty where it is absent or no text."""
        value = self.values.get(key)
        return value.node.text if value and value.node.kind == "scalar" else ""

    def is_on(self, key: str) -> bool:
        """Whether a key is there and true."""
        return key in self.values and self.values[key].boolean()

    def files(self) -> list[ConfigValue]:
        """What names files below /models: each value is one name."""
        found: list[ConfigValue] = []
        for key in FILES:
            value = self.values.get(key)
            if value and value.node.kind == "sequence":
                found += value.items()
            elif value and value.node.kind == "scalar" and value.node.text:
                found.append(value)
        options = self.values.get("options")
        for item in options.items() if options and options.node.kind == "sequence" else ():
            name, colon, file = item.node.text.partition(":")
            if colon and file and (name in _OPTION_FILES or name.endswith("_path")):
                found.append(replace(item.plain(file), key=f"options.{name}"))
        return found

    @property
    def templates(self) -> tuple[ConfigValue, ...]:
        """What names or is a prompt template."""
        found = (self.values.get(f"template.{key}") for key in TEMPLATES)
        return tuple(value for value in found if value and value.node.kind == "scalar" and value.node.text)


@dataclass(frozen=True)
class Config:
    """The model configurations, and every error that keeps LocalAI from reading them.

    `text` is where the config stands in the aikitfile, to point at single characters of it.
    """

    entries: tuple[ConfigEntry, ...]
    errors: tuple[Diagnostic, ...]
    text: Text

    def require(self) -> tuple[ConfigEntry, ...]:
        """The model configurations. Raises AikitError with all errors."""
        if self.errors:
            raise AikitError(*self.errors)
        return self.entries


def read(aikitfile: Aikitfile) -> Config | None:
    """The aikitfile's config; None where it has none."""
    if aikitfile.config is None:
        return None
    return _read(aikitfile.config.value, aikitfile.config.at, aikitfile.data)


@lru_cache(maxsize=4)
def _read(config: str, at: Position, data: bytes) -> Config:
    lines = tuple(yamltree.decode(data, at.file).split("\n"))
    reading = _Reading(Text(at, tuple(config.split("\n")), lines))
    entries = tuple(reading.entries(config))
    return Config(entries, tuple(reading.errors), reading.text)


class _Reading:
    """Collects errors on the way."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self._flat: dict[int, dict[str, Pair]] = {}
        self.errors: list[Diagnostic] = []

    def entries(self, config: str) -> Iterator[ConfigEntry]:
        try:
            root, _ = yamltree.compose(config, self.text.at.file)
        except AikitError as broken:
            problem = broken.diagnostics[0]
            at = self.text.at_mark(problem.at.line, problem.at.column) if problem.at else self.text.at
            self.refuse(f"the server cannot read this config: {problem.message}", at)
            return
        if root is None or root.is_null:
            return
        for item in root.items if root.kind == "sequence" else [root]:
            if item.kind == "mapping" and item is not root:
                yield self.entry(item)
            else:
                at = self.text.at if item is root else self.place(item)
                self.refuse("the config is not a list of model configurations: begin it with `- name: …`", at)

    def entry(self, node: Node) -> ConfigEntry:
        values: dict[str, ConfigValue] = {}
        for key, (_, value) in merged(node, self.odd, self._flat).items():
            self.add(values, key, value)
        return ConfigEntry(self.place(node), values)

    def add(self, values: dict[str, ConfigValue], key: str, node: Node) -> None:
        if node.is_null:
            return
        if key in _OPENED and node.kind == "mapping":
            for inner, (_, below) in merged(node, self.odd, self._flat).items():
                self.add(values, f"{key}.{inner}", below)
            return
        value = values[key] = ConfigValue(key, node, self.place(node))
        try:
            value.check()
            if key in _PATHS and (node.text.startswith("/") or ".." in node.text):
                raise value.error("must stay below /models: LocalAI takes no path with `..` or a leading `/`")
        except AikitError as wrong:
            self.errors += wrong.diagnostics

    def place(self, node: Node) -> Position:
        return self.text.at_mark(node.start.line + 1, node.start.column + 1)

    def odd(self, what: Odd, node: Node, _: Node) -> None:
        message = {
            Odd.KEY: f"a key must be a word, not {describe(node)}",
            Odd.MERGE: f"`<<` merges maps, not {describe(node)}",
            Odd.TWICE: f"`{short(node.text)}` stands in this map already: remove one",
        }
        self.refuse(f"config: {message[what]}", self.place(node))

    def refuse(self, message: str, at: Position) -> None:
        self.errors.append(_error(message, at, "config-yaml"))


def _plain(value: ConfigValue, node: Node) -> str:
    """The node's text, if a program's argument can hold it."""
    try:
        return goyaml.said(node.text)
    except goyaml.UnsaidError as problem:
        raise value.error(str(problem)) from None


def _error(message: str, at: Position, code: str) -> Diagnostic:
    return Diagnostic(Severity.ERROR, code, printable(message), at)
