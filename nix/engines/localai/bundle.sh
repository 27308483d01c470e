# Copies $program into $out with the shared libraries that it needs: see bundle.nix, which also sets $re2.
set -euo pipefail

install -D $program --target-directory $out/bin
program=$out/bin/$(basename $program)
interpreter=$(patchelf --print-interpreter $program)
libc=$(dirname $interpreter)
rpath=$out/lib:$libc
mkdir $out/lib
while read -r soname _ library _; do
  case $soname in
    # glibc's own; and what only the other re2 needs.
    /* | linux-vdso.* | ld-linux* | libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | libicu*) ;;
    libcuda.so.1) ;;
    libcu* | libnv*) rpath+=:$(dirname $library) ;;
    libre2.so.*) install $re2/lib/$soname $out/lib ;;
    *) install $library $out/lib/$soname ;;
  esac
done < <($interpreter --list $program)
for file in $program $out/lib/*; do
  # As nuke-refs does: the length stays, the reference goes.
  LC_ALL=C sed -i -E "s|$NIX_STORE/[0-9a-z]{32}-|$NIX_STORE/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-|g" $file
  patchelf --set-rpath $rpath $file
done
patchelf --set-interpreter $interpreter $program
