# What ggml is compiled for: the wanted ones of the instruction sets that it knows; or, where none are named, its CPU
# backend once for each type of processor, as libraries of which the best is loaded at run time. The GPU's is one too, and
# left aside without a driver.
#
# variants  whether it is the latter
# flags     for CMake. GGML_NATIVE is always off: it would compile for the machine that builds.
{
  lib,
  wanted ? null,
  known ? [ ],
}:

let
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
      map (set: lib.cmakeBool "GGML_${set}" (builtins.elem set wanted)) known
  );
}
