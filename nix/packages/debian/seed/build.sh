#!/bin/sh
# Compile the seed (Debian 12: gcc 12.2, musl-tools 1.2.3) and print it as the text that Nix unpacks: seed.txt.
# tests/nix/test_seed.py says whether seed.txt is what this makes.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
musl-gcc -std=c11 -Wall -Wextra -Werror -O2 -s -static -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables \
  -Wl,--gc-sections,--build-id=none,-z,noseparate-code -o "$work/seed" seed.c
tar -C "$work" --format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mode=755 --mtime=@1 -cf "$work/seed.tar" seed
gzip -n -9 "$work/seed.tar"
echo "begin-base64 644 seed.tar.gz"
base64 -w 120 "$work/seed.tar.gz"
echo "===="
