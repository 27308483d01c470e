"""Write a tree of folders, text files and symlinks: `tree.py SPEC.json OUT`."""

import json
import sys
from pathlib import Path

spec_file, out = sys.argv[1:]
spec = json.loads(Path(spec_file).read_text(encoding="utf-8"))
root = Path(out)
root.mkdir()


def place(path: str) -> Path:
    """The file for an absolute path of the image, inside the tree, its folder made."""
    target = root / path.removeprefix("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


for folder in spec["folders"]:
    place(folder).mkdir(exist_ok=True)
for file in spec["files"]:
    target = place(file["path"])
    target.write_bytes(file["text"].encode())
    if file.get("executable"):
        target.chmod(0o755)
for link in spec["links"]:
    place(link["path"]).symlink_to(link["target"])
