# The CMake flags that fix ggml's instruction set. GGML_NATIVE is always off: it would compile for the machine that builds.
{ lib, runtime }:

let
  runtimes = import ../../runtimes.nix;
  wanted = runtimes.${runtime}.instructions;
in
[ (lib.cmakeBool "GGML_NATIVE" false) ]
++ map (set: lib.cmakeBool "GGML_${set}" (builtins.elem set wanted)) runtimes.avx512.instructions
