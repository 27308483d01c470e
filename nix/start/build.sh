#!/bin/sh
# Compile a freestanding program for a Nix system (Debian 12: gcc 12.2, for arm64 gcc-aarch64-linux-gnu) and print it as the
# text that Nix unpacks, from the folder nix/:
#   start/build.sh x86_64-linux start/start.c aikit-nix > start/debian/x86_64-linux.txt
#   start/build.sh x86_64-linux packages/debian/seed/seed.c seed > packages/debian/seed/x86_64-linux.txt
# tests/nix/test_start.py and test_seed.py say whether the texts are what this makes.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${1%-linux}-linux-gnu-gcc" $(cat start/flags) -o "$work/$3" "$2"
tar -C "$work" --format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mode=755 --mtime=@1 -cf "$work/tar" "$3"
gzip -n -9 "$work/tar"
echo "begin-base64 644 $3.tar.gz"
base64 -w 120 "$work/tar.gz"
echo "===="
