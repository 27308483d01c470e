# What ggml is compiled for: the runtime's instruction sets; or, where it fixes none, its CPU backend once for each type
# of processor, as libraries of which the best is loaded at run time. The GPU's is one too, and left aside without a driver.
#
# variants  whether it is the latter
# flags     for CMake. GGML_NATIVE is always off: it would compile for the machine that builds.
{ lib, runtime }:

let
  runtimes = import ../../runtimes.nix;
  wanted = runtimes.${runtime}.instructions or null;
  variants = wanted == null;
in
{
  inherit variants;
  flags = [
    (lib.cmakeBool "GGML_NATIVE" false)
  ]
  ++ (
    if variants then
      [
        (lib.cmakeBool "GGML_BACKEND_DL" true)
        (lib.cmakeBool "GGML_CPU_ALL_VARIANTS" true)
        # A library finds the ones beside it.
        (lib.cmakeBool "CMAKE_BUILD_WITH_INSTALL_RPATH" true)
        (lib.cmakeFeature "CMAKE_INSTALL_RPATH" "${placeholder "out"}/lib")
      ]
    else
      map (set: lib.cmakeBool "GGML_${set}" (builtins.elem set wanted)) runtimes.avx512.instructions
  );
}
