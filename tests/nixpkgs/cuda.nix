# nixpkgs' own cudaPackages_13_0 on NVIDIA's wheels from PyPI, where its downloads come from elsewhere: an overlay for
# ./debian-toolchain.nix.
#
# wheels  the folder with them; ./cuda.py says which
{ wheels }:

let
  hashes = builtins.fromJSON (builtins.readFile ./cuda-wheels.json);
in
final: prev:
let
  inherit (final) lib;

  # As a stdenv of nixpkgs would say of its compiler.
  stdenv = prev.stdenv.override (old: {
    cc = old.cc // {
      isGNU = true;
      version = "12";
    };
  });

  # A wheel as NVIDIA's own archive of the same files: programs are executable, libraries have a name to link with.
  unpacked =
    wheel:
    final.runCommand "${wheel}-unpacked" { nativeBuildInputs = [ final.python3 ]; } ''
      python3 -m zipfile -e ${
        builtins.path {
          path = /. + "${wheels}/${wheel}";
          name = wheel;
          recursive = false;
          sha256 = hashes.${wheel};
        }
      } wheel
      mv wheel/nvidia/cu13 $out
      rm -rf $out/.metadata
      chmod -R a+rX,u+w $out
      for folder in $out/bin $out/nvvm/bin; do
        [ ! -d $folder ] || find $folder -type f -exec chmod +x {} +
      done
      for library in $out/lib/lib*.so.*; do
        [ ! -e $library ] || ln -s ''${library##*/} ''${library%.so.*}.so
      done
    '';

  wheel =
    name:
    let
      found = builtins.filter (lib.hasPrefix "nvidia_${name}-") (builtins.attrNames hashes);
    in
    unpacked (builtins.head found);

  from =
    name: change: package:
    package.overrideAttrs (old: { src = wheel name; } // change old);

  extension = cuda: previous: {
    backendStdenv = import (final.path + "/pkgs/development/cuda-modules/backendStdenv") {
      inherit (final)
        _cuda
        config
        lib
        stdenvAdapters
        ;
      pkgs = final;
      inherit (cuda) cudaMajorMinorVersion;
      inherit stdenv;
    };

    cccl = from "cuda_cccl" (_: { }) previous.cccl;
    cuda_crt = from "cuda_crt" (_: { }) previous.cuda_crt;
    libnvvm = from "nvvm" (_: { }) previous.libnvvm;

    cuda_cudart = from "cuda_runtime" (old: {
      prePatch = (old.prePatch or "") + ''
        mkdir -p lib/stubs
        $CC -shared -fPIC -Wl,-soname,libcuda.so.1 -o lib/stubs/libcuda.so ${../fixtures/libcuda.c}
      '';
    }) previous.cuda_cudart;

    libcublas = from "cublas" (_: {
      outputs = [
        "out"
        "dev"
        "include"
        "lib"
      ];
    }) previous.libcublas;

    # Kernels that nobody runs need not be fast: less than half of the compile time.
    cuda_nvcc = from "cuda_nvcc" (_: {
      setupHook = final.writeText "fast-compile" "export NVCC_APPEND_FLAGS='-Ofc max'\n";
    }) previous.cuda_nvcc;
  };
in
{
  cudaPackages = final.cudaPackages_13_0;
  cudaPackages_13 = final.cudaPackages_13_0;
  _cuda = prev._cuda.extend (_: old: { extensions = old.extensions ++ [ extension ]; });

  # Debian's toolchain does for the wheels' programs what this does, and it is Python with a library.
  autoPatchelfHook = final.emptyDirectory;
}
