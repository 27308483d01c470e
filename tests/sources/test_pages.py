"""Addresses that a browser shows on a hub; and that whatever a message proposes can be written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aikit_nix import sources
from aikit_nix.sources import HubFile, HubRepository, RefusedError, Web, pages
from support.hugging_face import HuggingFace
from support.locks import digest, done, locked, only_file, refused, write

HUB = "https://huggingface.co"


@pytest.mark.parametrize(
    ("text", "kind", "revision", "inner"),
    [
        (f"{HUB}/ns/repo/resolve/main/m.gguf", HubFile, "main", "m.gguf"),
        (f"{HUB}/ns/repo/resolve/main/m.gguf?download=true", HubFile, "main", "m.gguf"),
        (f"{HUB}/ns/repo/blob/main/dir/m.gguf#L1", HubFile, "main", "dir/m.gguf"),
        (f"{HUB}/ns/repo/raw/v1.0/m.gguf", HubFile, "v1.0", "m.gguf"),
        (f"{HUB}/ns/repo/blob/refs%2Fpr%2F1/m.gguf", HubFile, "refs/pr/1", "m.gguf"),
        (f"{HUB}/ns/repo/blob/refs/pr/12/dir/m.gguf", HubFile, "refs/pr/12", "dir/m.gguf"),
        (f"{HUB}/ns/repo/resolve/feature%2Fx/m.gguf", HubFile, "feature/x", "m.gguf"),
        (f"{HUB}/ns/repo/resolve/refs%2Fpr%2F1/d/m%20x.gguf", HubFile, "refs/pr/1", "d/m x.gguf"),
        (f"{HUB}/ns/repo?show_file_info=dir%2Fm.gguf", HubFile, "main", "dir/m.gguf"),
        (f"{HUB}/ns/repo/tree/v1?show_file_info=m.gguf", HubFile, "v1", "m.gguf"),
        ("https://hf.co/ns/repo/blob/main/m%20x.gguf", HubFile, "main", "m x.gguf"),
        ("http://www.huggingface.co/ns/repo/resolve/main/m.gguf", HubFile, "main", "m.gguf"),
        (f"{HUB}/ns/repo", HubRepository, "main", ""),
        (f"{HUB}/ns/repo/", HubRepository, "main", ""),
        (f"{HUB}/ns/repo/tree/main", HubRepository, "main", ""),
        (f"{HUB}/ns/repo/tree/refs%2Fpr%2F1/", HubRepository, "refs/pr/1", ""),
        (f"{HUB}/ns/repo/tree/main/UD-Q4_K_XL", HubRepository, "main", "UD-Q4_K_XL"),
        (f"{HUB}/ns/repo/tree/v1/a/b/", HubRepository, "v1", "a/b"),
        ("https://HuggingFace.co/ns/repo/tree/v1/", HubRepository, "v1", ""),
        ("https://hf.co/ns/repo", HubRepository, "main", ""),
        ("https://hf.co/ns/repo?library=transformers", HubRepository, "main", ""),
    ],
)
def test_a_file_a_folder_or_all_of_a_repository(text: str, kind: type, revision: str, inner: str) -> None:
    source = sources.read(text)
    assert isinstance(source, HubFile | HubRepository)
    where = source.path if isinstance(source, HubFile) else source.folder
    assert (type(source), source.repo, source.revision, where) == (kind, "ns/repo", revision, inner)


@pytest.mark.parametrize(
    "text",
    [
        f"{HUB}/datasets/ns/data/resolve/main/m.gguf",
        f"{HUB}/gpt2/resolve/main/m.gguf",
        "https://hf-mirror.com/ns/repo/resolve/main/m.gguf?download=true",
        "https://modelscope.cn/models/ns/repo/resolve/master/m.gguf",
        "https://www.modelscope.cn/models/ns/repo/resolve/master/dir/m.gguf",
        *(
            f"https://{host}/ns/repo/resolve/main/m.gguf"
            for host in ("huggingface.co.evil.example", "huggingface.co:8443")
        ),
        "https://evil.example/huggingface.co/ns/repo/blob/main/m.gguf",
    ],
)
def test_a_file_on_any_host(text: str) -> None:
    assert pages.read(text) is None
    assert isinstance(source := sources.read(text), Web)
    assert source.file == "m.gguf"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (f"{HUB}/datasets/ns/data/blob/main/m.gguf", f"{HUB}/datasets/ns/data/resolve/main/m.gguf"),
        (f"{HUB}/spaces/ns/app/raw/main/m.gguf", f"{HUB}/spaces/ns/app/resolve/main/m.gguf"),
        (f"{HUB}/datasets/ns/data", None),
        (f"{HUB}/ns", None),
        (f"{HUB}/ns/repo/discussions/1", None),
        (f"{HUB}/ns/repo/commits/main", None),
        (f"{HUB}/collections/ns/of-models", None),
        (f"{HUB}/ns/repo:Q4_K_M", None),
        (f"{HUB}/ns/repo/resolve/main/", None),
        ("https://hf-mirror.com/ns/repo/blob/main/m.gguf", "https://hf-mirror.com/ns/repo/resolve/main/m.gguf"),
        ("https://hf-mirror.com/ns/repo/tree/main/dir", "https://hf-mirror.com/ns/repo/resolve/main/dir/FILE"),
        ("https://modelscope.cn/models/ns/repo", "https://modelscope.cn/models/ns/repo/resolve/master/FILE"),
        ("https://modelscope.cn/models/ns/repo/files", "https://modelscope.cn/models/ns/repo/resolve/master/FILE"),
        (
            "https://modelscope.cn/models/ns/repo/file/view/v1/dir/m.gguf?status=2",
            "https://modelscope.cn/models/ns/repo/resolve/v1/dir/m.gguf",
        ),
    ],
)
def test_a_page_is_refused_with_a_form_that_works(text: str, written: str | None) -> None:
    with pytest.raises(RefusedError) as refused:
        sources.read(text)
    (proposed,) = re.findall(r"write (https://\S+)", str(refused.value))
    assert written in (None, proposed)
    sources.read(proposed)


# --- With a stand-in for Hugging Face


@pytest.fixture
def shards(hub: HuggingFace, model: bytes) -> HuggingFace:
    files = {
        f"{folder}/m-0000{part}-of-00002.gguf": model + bytes([part]) for folder in ("Q4", "Q8") for part in (1, 2)
    }
    hub.repository().commit(files | {"Q4/README.md": b"read me", "mmproj/x.gguf": model})
    return hub


@pytest.mark.usefixtures("nix")
def test_a_folder_is_its_files(tmp_path: Path, shards: HuggingFace) -> None:
    write(tmp_path, ("m", f"{HUB}/ns/repo/tree/main/Q8"))
    done(tmp_path, "lock")
    assert [file["path"] for file in locked(tmp_path)[0]["files"]] == [
        f"/models/ns/repo/Q8/m-0000{part}-of-00002.gguf" for part in (1, 2)
    ]
    assert "up to date" in done(tmp_path, "lock")  # the lock that was written is one that is read


@pytest.mark.usefixtures("nix")
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("huggingface://ns/repo/Q4/m-00001-of-00002.gguf", "but a folder"),
        ("huggingface://ns/repo/m-00001-of-00002.gguf", "is not in the repository"),
        ("huggingface://ns/repo/Q4/deeper/m-00001-of-00002.gguf", "has more than"),
        ("huggingface://ns/repo", "alternatives of one another"),
        (f"{HUB}/ns/repo", "alternatives of one another"),
        (f"{HUB}/ns/repo/tree/main/Q4/m-00001-of-00002.gguf", "is a file, no folder"),
    ],
)
def test_what_a_message_proposes_works(tmp_path: Path, shards: HuggingFace, source: str, said: str) -> None:
    write(tmp_path, ("m", source))
    message = refused(tmp_path, "lock")
    assert said in message
    proposed = [
        found.rstrip(",:") for found in re.findall(r"(?:write|as|has:|,) ((?:https|huggingface)://[^\s`]+)", message)
    ]
    assert proposed
    for each in proposed:
        if "BRANCH" in each:  # a form, of which the rest is the user's
            each = each.replace("BRANCH/PATH", "main/Q4/m-00001-of-00002.gguf")
        write(tmp_path, ("m", each))
        done(tmp_path, "lock")
        assert len(locked(tmp_path)[0]["files"]) == (1 if "mmproj" in each else 2)


@pytest.mark.usefixtures("nix")
def test_a_folder_that_is_not_there(tmp_path: Path, shards: HuggingFace) -> None:
    write(tmp_path, ("m", f"{HUB}/ns/repo/tree/main/Q5"))
    assert "is a folder without any file of a model: it has the folders Q4, Q8, mmproj" in refused(tmp_path, "lock")


@pytest.mark.usefixtures("nix")
def test_a_mirror_that_says_less(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    """Neither sizes nor hashes of its files: each file's own address says them, and no weights come."""
    large = model + bytes(64 << 20)
    hub.repository().commit({"m.gguf": large})
    hub.sizes = False
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    done(tmp_path, "lock")
    assert (only_file(tmp_path)["sha256"], only_file(tmp_path)["size"]) == (digest(large), len(large))
    assert hub.sent < 40 << 20
