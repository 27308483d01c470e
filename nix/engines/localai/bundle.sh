# Copies $program into $out with the shared libraries that it needs: see bundle.nix, which also sets $re2.
set -euo pipefail
shopt -s inherit_errexit nullglob

# What the loader would load for a program, one `SONAME => PATH (ADDRESS)` a line. Only the driver may be missing: it
# comes from the machine that the image is started on.
libraries() {
  local listed
  # As ldd asks. `--list` would say nothing but the name of the first one that is missing.
  listed=$(LD_TRACE_LOADED_OBJECTS=1 "$interpreter" "$1")
  if grep "not found" <<< "$listed" | grep --invert-match "^\s*libcuda\.so\.1 =>" >&2; then
    echo "$1 cannot be started" >&2
    return 1
  fi
  echo "$listed"
}

# A program, and the libraries beside it that it loads by itself.
files=("$program" "$(dirname "$program")"/*.so)
install -D "${files[@]}" --target-directory "$out/bin"
interpreter=$(patchelf --print-interpreter "$program")
rpath=$out/lib:$(dirname "$interpreter")
mkdir "$out/lib"

needed=$(for file in "${files[@]}"; do libraries "$file"; done)
while read -r soname _ library _; do
  case $soname in
    # glibc's own; and what only the other re2 needs.
    /* | linux-vdso.* | ld-linux* | libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | libicu*) ;;
    libcuda.so.1) ;;
    # Half a gigabyte, and the other backends are linked with it too.
    libcublas*) rpath+=:$(dirname "$library") ;;
    libre2.so.*) install "$re2/lib/$soname" "$out/lib" ;;
    *) install "$library" "$out/lib/$soname" ;;
  esac
done <<< "$needed"

for file in "$out"/{bin,lib}/*; do
  # As nuke-refs does: the length stays, the reference goes.
  LC_ALL=C sed -i -E "s|$NIX_STORE/[0-9a-z]{32}-|$NIX_STORE/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-|g" "$file"
  patchelf --set-rpath "$rpath" "$file"
done
patchelf --set-interpreter "$interpreter" "$out/bin/$(basename "$program")"

for file in "$out"/bin/*; do
  libraries "$file" > /dev/null
done
