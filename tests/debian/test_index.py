"""The formats of Debian's archive, and which packages one needs."""

from __future__ import annotations

import itertools
import shutil
import subprocess

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.debian import index as debian_index

ORDERED = [
    "0~~",
    "0~",
    "0",
    "0+b1",
    "0.27.0-1",
    "1.0~rc1-1",
    "1.0-1",
    "1.0-1+b1",
    "1.0-1.1",
    "1.0-2",
    "1.0a-1",
    "1.0+dfsg-1",
    "1.0.1-1",
    "1.9-1",
    "1.10-1",
    "20260816",
    "20260816+nmu1",
    "1:0.1-1",
    "1:0.7.0+dfsg-2",
    "2:0-1",
]


def test_only_a_line_feed_ends_a_line() -> None:
    (fields,) = debian_index.stanzas("Package: a\nDescription: b\x85Package: c\u2028 d\x0cVersion: 1\n")
    assert fields == {"package": "a", "description": "b\x85Package: c\u2028 d\x0cVersion: 1"}


def test_versions_are_ordered_as_dpkg_orders_them() -> None:
    versions = [debian_index.Version(text) for text in ORDERED]
    assert all(a < b for a, b in itertools.pairwise(versions))
    assert debian_index.Version("1.0-0") == debian_index.Version("1.0")
    assert debian_index.Version("0:1.0") == debian_index.Version("1.00")


@pytest.mark.skipif(not shutil.which("dpkg"), reason="dpkg is not installed")
def test_the_order_is_dpkgs() -> None:
    for a, b in itertools.pairwise(ORDERED):
        subprocess.run(["dpkg", "--compare-versions", a, "lt", b], check=True)


def test_a_control_file_is_read() -> None:
    text = "# comment\nPackage: a\nDescription: short\n long\n .\nX:\n\n\n \nPackage: b\nno field\n"
    assert list(debian_index.stanzas(text)) == [
        {"package": "a", "description": "short\nlong\n.", "x": ""},
        {"package": "b"},
    ]


def test_dependencies_are_read() -> None:
    first, second = debian_index.relations("a:any (>= 1:2~), b (<< 3) | c | d ,")
    assert first == (debian_index.Relation("a", ">=", "1:2~"),)
    assert [relation.name for relation in second] == ["b", "c", "d"]
    assert first[0].accepts("1:2") and not first[0].accepts("9")
    with pytest.raises(AikitError, match="cannot be read"):
        list(debian_index.relations("a (~ 3)"))


def package(name: str, depends: str = "", version: str = "1", provides: str = "") -> debian_index.Package:
    return debian_index.Package(name, version, f"pool/main/{name}.deb", "0" * 64, 1, depends, provides)


def closure(*packages: debian_index.Package, left_out: tuple[str, ...] = ()) -> list[str]:
    return debian_index.closure(["root"], frozenset(left_out), {p.name: p for p in packages})


def test_a_closure_follows_dependencies_alternatives_and_virtual_packages() -> None:
    found = closure(
        package("root", "a (>= 2), missing | b, virtual, versioned (>= 3)"),
        package("a", "root", version="2"),
        package("b", "c | d"),
        package("c"),
        package("d"),
        package("real", provides="virtual"),
        package("old", provides="versioned (= 2)"),
        package("new", provides="versioned (= 3)"),
        package("unrelated"),
    )
    assert found == ["a", "b", "c", "new", "real", "root"]


def test_an_alternative_that_is_there_already_is_enough() -> None:
    assert closure(package("root", "b, a | b"), package("a"), package("b")) == ["b", "root"]


def test_what_is_left_out_brings_nothing_in() -> None:
    index = package("root", "a, x | b"), package("a"), package("x", "y"), package("b"), package("y")
    assert closure(*index, left_out=("x",)) == ["a", "root"]


def test_a_dependency_that_nothing_fulfils_is_named() -> None:
    with pytest.raises(AikitError, match=r"cannot give root what it needs \(a >= 2 \| b\)"):
        closure(package("root", "a (>= 2) | b"), package("a", version="1.9"))


@pytest.mark.parametrize(
    ("operator", "accepted"), [("<<", "1"), ("<=", "12"), ("=", "2"), (">=", "23"), (">>", "3"), (None, "123")]
)
def test_a_dependency_takes_the_versions_that_it_says(operator: str | None, accepted: str) -> None:
    relation = debian_index.Relation("a", operator, operator and "2")
    assert "".join(version for version in "123" if relation.accepts(version)) == accepted


def test_a_virtual_package_of_no_version_fulfils_no_version() -> None:
    with pytest.raises(AikitError, match="cannot give root"):
        closure(package("root", "v (>= 1)"), package("a", provides="v"), package("b", provides="w (= 1)"))


def test_an_offer_that_is_there_or_left_out_is_enough() -> None:
    provides = package("a", provides="v"), package("b", provides="v"), package("z")
    assert closure(package("root", "b, z, v"), *provides) == ["b", "root", "z"]
    assert closure(package("root", "z, v"), *provides, left_out=("a",)) == ["root", "z"]


GOOD = {
    "Package": "a",
    "Version": "1:2-3",
    "Filename": "pool/main/a/a_2-3_amd64.deb",
    "SHA256": "A" * 64,
    "Size": "5",
    "Pre-Depends": "b",
    "Depends": "c",
    "Provides": "d",
}


def control(**changed: str | None) -> str:
    fields = {**GOOD, **changed}
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value is not None)


@pytest.mark.parametrize("order", [("1.9", "1.10", "1.9"), ("1.10", "1.9", "1.9"), ("1.9", "1.9", "1.10")])
def test_of_several_versions_the_newest_counts(order: tuple[str, ...]) -> None:
    texts = [control(Version=version) for version in order]
    found = debian_index.newest("\n".join(texts[:2]), texts[2], control(Filename=None, Package="no-file"))
    assert {name: each.version for name, each in found.items()} == {"a": "1.10"}
    assert found["a"].sha256 == "a" * 64
    assert (found["a"].depends, found["a"].provides, found["a"].component) == ("b, c", "d", "main")


def test_of_one_version_the_first_counts() -> None:
    found = debian_index.newest(control(Size="1"), control(Size="2"))
    assert found["a"].size == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, None) for name in ("Package", "Version", "SHA256", "Size")),
        *((("Package", value)) for value in ("A", "-a", "a b", "../a")),
        *((("Version", value)) for value in ("", "a:1", "1 2", "1/2", "1\x1b")),
        *((("SHA256", value)) for value in ("a" * 63, "g" * 64)),
        *((("Size", value)) for value in ("0", "-1", "x", str(1 << 34), "9" * 5000)),
        *(
            (("Filename", value))
            for value in ("/etc/passwd", "pool/main/../../a.deb", "pool/other/a.deb", "pool/main/a")
        ),
    ],
)
def test_a_package_that_makes_no_sense_is_refused(name: str, value: str | None) -> None:
    with pytest.raises(AikitError, match="cannot be read"):
        debian_index.newest(control(**{name: value}))
