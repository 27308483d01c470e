# The CMake flags that fix ggml's instruction set: LocalAI's own table (its backends' Makefiles). GGML_NATIVE is always
# off: it would compile for the machine that builds.
{ lib }:

let
  x86 =
    enabled:
    map (feature: lib.cmakeBool "GGML_${feature}" (builtins.elem feature enabled)) [
      "AVX"
      "AVX2"
      "AVX512"
      "FMA"
      "F16C"
      "BMI2"
    ];

  avx2 = [
    "AVX"
    "AVX2"
    "FMA"
    "F16C"
    "BMI2"
  ];

  sets = {
    # The platform's baseline; on x86-64 what LocalAI builds its GPU images' host code with.
    cpu = x86 [ ];
    avx = x86 [ "AVX" ];
    avx2 = x86 avx2;
    avx512 = x86 (avx2 ++ [ "AVX512" ]);
  };
in
runtime:
[ (lib.cmakeBool "GGML_NATIVE" false) ] ++ sets.${if runtime == "cuda" then "cpu" else runtime}
