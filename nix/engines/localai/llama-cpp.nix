# LocalAI's llama.cpp backend: a gRPC server around llama.cpp, compiled for one runtime.
{
  lib,
  stdenv,
  fetchFromGitHub,
  abseil-cpp,
  cmake,
  cudaPackages,
  grpc,
  ninja,
  openssl,
  pkg-config,
  protobuf,
  source,
  pin,
  runtime,
  instructions,
}:

let
  cuda = runtime == "cuda";
  inherit (instructions) variants flags;

  llamaCpp = fetchFromGitHub {
    owner = "ggml-org";
    repo = "llama.cpp";
    inherit (pin) rev hash;
    # Vocabularies for llama.cpp's own tests: a third of the tree.
    postFetch = "rm -r $out/models";
  };
in
(if cuda then cudaPackages.backendStdenv else stdenv).mkDerivation {
  pname = "localai-llama-cpp-${runtime}-unwrapped";
  version = builtins.substring 0 7 pin.rev;

  src = source;
  # LocalAI's backend becomes one of llama.cpp's tools, and finds the protocol by its place in LocalAI's tree.
  postUnpack = ''
    cp -r ${llamaCpp} $sourceRoot/backend/cpp/llama-cpp/llama.cpp
    chmod -R u+w $sourceRoot/backend/cpp/llama-cpp/llama.cpp
  '';
  postPatch = ''
    cd backend/cpp/llama-cpp
    mkdir llama.cpp/tools/grpc-server
    bash prepare.sh
    cd llama.cpp
  '';

  nativeBuildInputs = [
    cmake
    ninja
    pkg-config
    protobuf
    grpc
  ]
  ++ lib.optional cuda cudaPackages.cuda_nvcc;
  buildInputs = [
    abseil-cpp
    grpc
    openssl
    protobuf
  ]
  ++ lib.optionals cuda [
    cudaPackages.cccl
    cudaPackages.cuda_cudart
    cudaPackages.libcublas
  ];

  cmakeFlags = [
    (lib.cmakeBool "BUILD_SHARED_LIBS" variants)
    (lib.cmakeBool "LLAMA_CURL" false)
    (lib.cmakeBool "LLAMA_OPENSSL" false)
    (lib.cmakeBool "LLAMA_BUILD_TESTS" false)
    (lib.cmakeBool "LLAMA_BUILD_EXAMPLES" false)
  ]
  ++ flags
  ++ lib.optionals cuda [
    (lib.cmakeBool "GGML_CUDA" true)
    (lib.cmakeFeature "CMAKE_CUDA_ARCHITECTURES" cudaPackages.flags.cmakeCudaArchitecturesString)
  ];
  ninjaFlags = [ "grpc-server" ];

  # ggml looks for its backends beside the program.
  installPhase = ''
    runHook preInstall
    install -D bin/grpc-server $out/bin/llama-cpp-grpc-server
  ''
  + lib.optionalString variants ''
    mkdir $out/lib
    cp --no-dereference bin/lib*.so* $out/lib
    mv $out/lib/libggml-{cpu,cuda}* $out/bin
  ''
  + ''
    runHook postInstall
  '';

  # Hours on a small machine. Null and not an empty list: it is then no part of the derivation.
  requiredSystemFeatures = if cuda then [ "big-parallel" ] else null;

  passthru = { inherit llamaCpp; };

  meta = {
    description = "llama.cpp as a backend of LocalAI, compiled for ${runtime}";
    homepage = "https://github.com/ggml-org/llama.cpp";
    license = lib.licenses.mit;
    mainProgram = "llama-cpp-grpc-server";
    platforms = lib.platforms.linux;
  };
}
