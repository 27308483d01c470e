# A package with a copy of CUDA's runtime library in place of a reference to it: the package of that library is also all
# of CUDA's headers and the compiler's setup hooks. In a derivation of its own, because CUDA's kernels take hours to
# compile and this takes a second. What is overridden is the package itself.
{ pkgs, package }:

let
  inherit (pkgs.cudaPackages) cuda_cudart cudaMajorVersion;
  again =
    changed:
    import ./with-cudart.nix {
      inherit pkgs;
      package = changed;
    };
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
  override = arguments: again (package.override arguments);
  overrideAttrs = change: again (package.overrideAttrs change);
}
