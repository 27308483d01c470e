# libgosd.so: stable-diffusion.cpp behind the few C functions that LocalAI's Go backend calls, compiled for one runtime.
{
  lib,
  stdenv,
  fetchPypi,
  fetchurl,
  autoAddDriverRunpath,
  cmake,
  cudaPackages,
  ninja,
  source,
  pin,
  runtime,
}:

let
  cuda = runtime == "cuda";

  # stable-diffusion.cpp with its submodules, as the Python bindings' source package carries it; and the C++ side of
  # LocalAI's backend as it stood when LocalAI was at that same commit.
  stableDiffusionCpp = fetchPypi {
    pname = "stable_diffusion_cpp_python";
    inherit (pin) version hash;
  };
  gosd = fetchurl {
    url = "https://raw.githubusercontent.com/mudler/LocalAI/${pin.gosdTag}/backend/go/stablediffusion-ggml/cpp/gosd.cpp";
    hash = pin.gosdHash;
  };
in
(if cuda then cudaPackages.backendStdenv else stdenv).mkDerivation {
  pname = "localai-stablediffusion-${runtime}";
  inherit (pin) version;

  src = source;
  sourceRoot = "source/backend/go/stablediffusion-ggml";
  postUnpack = ''
    mkdir -p $sourceRoot/sources/stablediffusion-ggml.cpp
    tar -xzf ${stableDiffusionCpp} -C $sourceRoot/sources/stablediffusion-ggml.cpp \
      --strip-components=3 stable_diffusion_cpp_python-${pin.version}/vendor/stable-diffusion.cpp
    cp ${gosd} $sourceRoot/cpp/gosd.cpp
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
    (lib.cmakeFeature "GGML_MAX_NAME" "128")
    (lib.cmakeBool "SD_BUILD_EXAMPLES" false)
  ]
  ++ import ./instructions.nix { inherit lib runtime; }
  ++ lib.optionals cuda [
    (lib.cmakeBool "SD_CUDA" true)
    (lib.cmakeFeature "CMAKE_CUDA_ARCHITECTURES" cudaPackages.flags.cmakeCudaArchitecturesString)
  ];
  ninjaFlags = [ "gosd" ];

  installPhase = ''
    runHook preInstall
    install -D libgosd.so $out/lib/libgosd.so
    runHook postInstall
  '';

  # The Go side binds these when it starts, and would only then say that one is missing.
  doInstallCheck = true;
  installCheckPhase = ''
    runHook preInstallCheck
    nm --dynamic --defined-only $out/lib/libgosd.so > symbols
    sed -nE 's/^\s*\{&[A-Za-z]+, "([a-z_]+)"\},$/\1/p' ../main.go > wanted
    test -s wanted
    while read -r symbol; do
      grep -qw "T $symbol" symbols || { echo "libgosd.so lacks $symbol"; exit 1; }
    done < wanted
    runHook postInstallCheck
  '';
  disallowedReferences = [ stdenv.cc ];

  meta = {
    description = "stable-diffusion.cpp as a backend of LocalAI, compiled for ${runtime}";
    homepage = "https://github.com/leejet/stable-diffusion.cpp";
    license = lib.licenses.mit;
    platforms = lib.platforms.linux;
  };
}
