#!/bin/sh
# Compile start.c for a Nix system (Debian 12: gcc 12.2, for arm64 gcc-aarch64-linux-gnu) and print it as the text that
# Nix unpacks: build.sh x86_64-linux >debian/x86_64-linux.txt. tests/nix/test_start.py says whether the texts are what this makes.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${1%-linux}-linux-gnu-gcc" $(cat flags) -o "$work/aikit-nix" start.c
tar -C "$work" --format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mode=755 --mtime=@1 -cf "$work/tar" aikit-nix
gzip -n -9 "$work/tar"
echo "begin-base64 644 aikit-nix.tar.gz"
base64 -w 120 "$work/tar.gz"
echo "===="
