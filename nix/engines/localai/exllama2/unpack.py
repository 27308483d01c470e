"""Unpacks of wheels (the arguments) what ExLlamaV2's extension is compiled and linked with."""

import sys
import zipfile

PARTS = ("exllamav2/exllamav2_ext/", "nvidia/cu13/include/", "torch/include/", "torch/lib/")

for wheel in sys.argv[1:]:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(members=[name for name in archive.namelist() if name.startswith(PARTS)])
