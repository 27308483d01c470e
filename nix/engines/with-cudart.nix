# A package with a copy of CUDA's runtime library in place of a reference to it: that library's package also has all of
# CUDA's headers and the compiler's hooks. A derivation of its own: CUDA's kernels take hours to compile, this a second.
{ pkgs, package }:

let
  inherit (pkgs.cudaPackages) cuda_cudart cudaMajorVersion;
  again = package: import ./with-cudart.nix { inherit pkgs package; };
in
pkgs.runCommand package.name
  {
    nativeBuildInputs = [ pkgs.patchelf ];
    disallowedReferences = [
      cuda_cudart
      package
    ];
    inherit (package) meta;
    passthru = package.passthru // {
      unwrapped = package;
    };
  }
  ''
    cp -r ${package} $out
    chmod -R u+w $out
    # The two paths are of one length, so this may be done to programs.
    find $out -type f -exec sed -i "s|${package}|$out|g" {} +
    install ${cuda_cudart}/lib/libcudart.so.${cudaMajorVersion} $out/lib
    find $out -type f -name '*.so*' | while read -r file; do
      rpath=$(patchelf --print-rpath "$file" | sed -E "s,${cuda_cudart}/lib(:|$),$out/lib\1,g")
      patchelf --set-rpath "$rpath" "$file"
    done
  ''
// {
  override = new: again (package.override new);
  overrideAttrs = new: again (package.overrideAttrs new);
}
