# Shell code for postFixup: `bundleLibraries PROGRAM` copies the shared libraries that the program needs into $out/lib
# and cuts every other tie to the store, so that the image carries the program, its libraries and glibc, and none of
# gRPC's compilers, headers and data. CUDA's libraries stay where they are: they are large and shared.
{ pkgs }:

let
  # nixpkgs' re2 pulls in 35 MB of Unicode tables for a syntax that gRPC never uses.
  re2 = pkgs.re2.overrideAttrs (old: {
    cmakeFlags = (old.cmakeFlags or [ ]) ++ [
      (pkgs.lib.cmakeBool "RE2_USE_ICU" false)
      (pkgs.lib.cmakeBool "RE2_BUILD_TESTING" false)
    ];
    doCheck = false;
  });
in
''
  bundleLibraries() {
    local program=$1 interpreter libc rpath soname library file
    interpreter=$(patchelf --print-interpreter "$program")
    libc=''${interpreter%/*}
    rpath=$out/lib:$libc
    mkdir -p $out/lib
    while read -r soname _ library _; do
      case $soname in
        # glibc's own; and what only the other re2 needs.
        /* | linux-vdso.* | ld-linux* | libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | libresolv.so.* | libicu*) ;;
        libcuda.so.1) ;;
        libcu* | libnv*) rpath+=:''${library%/*} ;;
        libre2.so.*) install ${re2.out}/lib/"$soname" $out/lib/ ;;
        *) install "$library" $out/lib/"$soname" ;;
      esac
    done < <("$interpreter" --list "$program")
    for file in "$program" $out/lib/*; do
      # As nuke-refs does: the length stays, the reference goes.
      LC_ALL=C sed -i -E "s|$NIX_STORE/[0-9a-z]{32}-|$NIX_STORE/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-|g" "$file"
      patchelf --set-rpath "$rpath" "$file"
    done
    patchelf --set-interpreter "$interpreter" "$program"
  }
''
