# CPython 3.13 as the machine has it: an overlay for ./debian-toolchain.nix, whose python3 is a link to the machine's.
#
# prefix  where it was installed, by pyenv for example
{ prefix }:

final: _: {
  python313 = final.stdenv.mkDerivation {
    pname = "python3";
    version = "3.13";
    src = builtins.path {
      path = /. + prefix;
      name = "cpython";
      filter =
        path: _:
        !(builtins.elem (baseNameOf path) [
          "__pycache__"
          "ensurepip"
          "idlelib"
          "share"
          "site-packages"
          "test"
        ]);
    };
    installPhase = ''
      cp -r . $out
      chmod -R u+w $out
      for library in libbz2.so.1.0 libffi.so.8 liblzma.so.5 libsqlite3.so.0 libuuid.so.1; do
        cp -L /usr/lib/x86_64-linux-gnu/$library $out/lib || cp -L /lib/x86_64-linux-gnu/$library $out/lib
      done
      # Inherited by what is loaded later, as on NixOS the C library's own folder is.
      find $out -type f \( -name 'python3.13' -o -name '*.so*' \) | while read -r file; do
        patchelf --set-rpath $out/lib "$file" || true
      done
    '';
    dontStrip = true;
    passthru = {
      pythonVersion = "3.13";
      inherit (final.python3) pkgs;
    };
    meta.mainProgram = "python3.13";
  };
}
