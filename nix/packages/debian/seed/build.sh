#!/bin/sh
# Compile the seed for a system and print it as the text that Nix unpacks: `build.sh SYSTEM > SYSTEM.txt`.
#
# Debian 12: for x86_64-linux gcc 12.2 and musl-tools 1.2.3; for aarch64-linux gcc-aarch64-linux-gnu 12.2 and, unpacked into
# $MUSL, the package musl-dev 1.2.3 of arm64. tests/nix/test_seed.py says whether the texts are what this makes.
set -eu
system=$1
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $system in
  x86_64-linux) compile() { musl-gcc "$@"; } ;;
  aarch64-linux)
    gcc=aarch64-linux-gnu-gcc
    lib=$MUSL/usr/lib/aarch64-linux-musl
    # What musl-gcc does, with another folder.
    compile() {
      $gcc -nostdinc -isystem "$MUSL/usr/include/aarch64-linux-musl" -isystem "$($gcc -print-file-name=include)" \
        -nostdlib -no-pie -mno-outline-atomics "$lib/crt1.o" "$lib/crti.o" "$@" "$lib/libc.a" \
        "$($gcc -print-libgcc-file-name)" "$lib/libc.a" "$lib/crtn.o"
    }
    ;;
esac
compile -std=gnu11 -Wall -Wextra -Werror -O2 -s -static -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables \
  -Wl,--gc-sections,--build-id=none,-z,noseparate-code -o "$work/seed" seed.c
tar -C "$work" --format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mode=755 --mtime=@1 -cf "$work/seed.tar" seed
gzip -n -9 "$work/seed.tar"
echo "begin-base64 644 seed.tar.gz"
base64 -w 120 "$work/seed.tar.gz"
echo "===="
