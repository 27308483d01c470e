# ExLlamaV2's extension for Python, compiled against the wheels of torch and of the CUDA libraries that torch is linked with.
{
  lib,
  cmake,
  cudaPackages,
  ninja,
  python3,
  interpreter,
  version,
  wheels,
}:

cudaPackages.backendStdenv.mkDerivation {
  pname = "exllamav2-ext";
  inherit version;

  inherit wheels;
  unpackPhase = ''
    mkdir source
    cd source
    python3 ${./unpack.py} $wheels
    cp ${./CMakeLists.txt} CMakeLists.txt
    # Several files that include them are compiled as one.
    sed -i '1i #pragma once' exllamav2/exllamav2_ext/ext_*.h
  '';

  nativeBuildInputs = [
    cmake
    cudaPackages.cuda_nvcc
    ninja
    python3
  ];
  buildInputs = [
    cudaPackages.cccl
    cudaPackages.cuda_cudart
  ];

  cmakeFlags = [
    (lib.cmakeFeature "CMAKE_CUDA_ARCHITECTURES" cudaPackages.flags.cmakeCudaArchitecturesString)
    (lib.cmakeFeature "LIGHT" "${./light}")
    (lib.cmakeFeature "PYTHON_INCLUDE" "${interpreter}/include/python${interpreter.pythonVersion}")
  ];

  # Beside it the compiler's libraries, which the wheels take from the machine.
  installPhase = ''
    runHook preInstall
    install -D exllamav2_ext.so --target-directory $out
    for library in libstdc++.so.6 libgcc_s.so.1; do
      install -D "$($CXX -print-file-name=$library)" $out/lib/$library
    done
    runHook postInstall
  '';
}
