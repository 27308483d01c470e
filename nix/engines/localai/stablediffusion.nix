# libgosd.so: stable-diffusion.cpp behind the few C functions that LocalAI's Go backend calls, compiled for one runtime.
{
  lib,
  stdenv,
  fetchFromGitHub,
  autoAddDriverRunpath,
  cmake,
  cudaPackages,
  ninja,
  source,
  pin,
  ggmlPin,
  runtime,
  instructions,
}:

let
  cuda = runtime == "cuda";
  inherit (instructions) variants flags;

  stableDiffusionCpp = fetchFromGitHub {
    owner = "leejet";
    repo = "stable-diffusion.cpp";
    inherit (pin) rev hash;
    # Pictures for its documentation.
    postFetch = "rm -r $out/assets";
  };
  # The one submodule that a library is made of: the others are for its programs.
  ggml = fetchFromGitHub {
    owner = "leejet";
    repo = "ggml";
    inherit (ggmlPin) rev hash;
  };
in
(if cuda then cudaPackages.backendStdenv else stdenv).mkDerivation {
  pname = "localai-stablediffusion-${runtime}";
  version = builtins.substring 0 7 pin.rev;

  src = source;
  sourceRoot = "source/backend/go/stablediffusion-ggml";
  postUnpack = ''
    mkdir $sourceRoot/sources
    cp -r ${stableDiffusionCpp} $sourceRoot/sources/stablediffusion-ggml.cpp
    chmod -R u+w $sourceRoot/sources
    cp -r ${ggml}/. $sourceRoot/sources/stablediffusion-ggml.cpp/ggml
  '';

  nativeBuildInputs = [
    cmake
    ninja
  ]
  ++ lib.optionals cuda [
    cudaPackages.cuda_nvcc
    autoAddDriverRunpath
  ];
  buildInputs = lib.optionals cuda [
    cudaPackages.cccl
    cudaPackages.cuda_cudart
    cudaPackages.libcublas
  ];

  cmakeFlags = [
    (lib.cmakeBool "SD_BUILD_EXAMPLES" false)
    (lib.cmakeBool "SD_RPC" true)
  ]
  ++ flags
  ++ lib.optionals variants [
    (lib.cmakeBool "SD_BUILD_SHARED_GGML_LIB" true)
    # The program that loads all this lies elsewhere.
    (lib.cmakeFeature "GGML_BACKEND_DIR" "${placeholder "out"}/lib")
  ]
  ++ lib.optionals cuda [
    (lib.cmakeBool "SD_CUDA" true)
    (lib.cmakeFeature "CMAKE_CUDA_ARCHITECTURES" cudaPackages.flags.cmakeCudaArchitecturesString)
  ];
  ninjaFlags = [ "gosd" ];

  installPhase = ''
    runHook preInstall
    install -D libgosd.so --target-directory $out/lib
  ''
  + lib.optionalString variants ''
    cp --no-dereference bin/libggml*.so* $out/lib
  ''
  + ''
    runHook postInstall
  '';

  disallowedReferences = [ stdenv.cc ];

  # Hours on a small machine. Null and not an empty list: it is then no part of the derivation.
  requiredSystemFeatures = if cuda then [ "big-parallel" ] else null;

  passthru = { inherit ggml stableDiffusionCpp; };

  meta = {
    description = "stable-diffusion.cpp as a backend of LocalAI, compiled for ${runtime}";
    homepage = "https://github.com/leejet/stable-diffusion.cpp";
    license = lib.licenses.mit;
    platforms = lib.platforms.linux;
  };
}
