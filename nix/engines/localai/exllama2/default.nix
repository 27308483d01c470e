# The backend exllama2: ExLlamaV2 on the wheels of PyTorch for CUDA 13, behind a gRPC server of our own.
#
# pkgs    nixpkgs, configured for CUDA
# source  LocalAI's, for the protocol
{ pkgs, source }:

assert
  pkgs.config.cudaSupport
  || throw "the backend exllama2 runs on NVIDIA's GPUs only: use the runtime cuda";

let
  inherit (pkgs) lib;
  # The wheel of torch is for these two.
  cudaPackages = pkgs.cudaPackages_13_0;
  interpreter = pkgs.python313;

  wheels = lib.mapAttrs (_: pkgs.fetchurl) (builtins.fromJSON (builtins.readFile ./wheels.json));
  version = builtins.head (builtins.match ".*/exllamav2-([0-9.]+)-.*" wheels.exllamav2.url);

  compiled = pkgs.callPackage ./extension.nix {
    inherit cudaPackages interpreter version;
    wheels = lib.attrVals [
      "exllamav2"
      "nvidia-cublas"
      "nvidia-curand"
      "nvidia-cusolver"
      "nvidia-cusparse"
      "torch"
    ] wheels;
  };

  # Without a way to CUDA's packages, with all of their headers: the libraries that it is linked with are loaded by torch. In a
  # derivation of its own, as the kernels take long to compile.
  extension =
    pkgs.runCommand compiled.name
      {
        nativeBuildInputs = [ pkgs.patchelf ];
        disallowedReferences = [
          cudaPackages.cuda_cudart
          compiled
        ];
      }
      ''
        cp -r ${compiled} $out
        chmod -R u+w $out
        find $out -type f | while read -r file; do
          patchelf --remove-rpath "$file"
          # As nuke-refs does: patchelf leaves the text where it was.
          LC_ALL=C sed -i -E "s|$NIX_STORE/[0-9a-z]{32}-|$NIX_STORE/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-|g" "$file"
        done
      '';

  # Apart from the extension: gigabytes that stay the same whatever it is compiled for, so a layer of their own.
  modules =
    pkgs.runCommand "exllamav2-modules-${version}"
      {
        nativeBuildInputs = [
          pkgs.patchelf
          pkgs.python3
        ];
        # Only headers of it are needed.
        wheels = builtins.attrValues (removeAttrs wheels [ "nvidia-cusolver" ]);
      }
      ''
        mkdir $out
        for wheel in $wheels; do
          python3 -m zipfile -e $wheel $out
        done
        cd $out
        bash ${./prune.sh}
      '';

  protocol =
    pkgs.runCommand "localai-backend-protocol"
      {
        nativeBuildInputs = [ pkgs.protobuf ];
      }
      "protoc --experimental_allow_proto3_optional -I ${source}/backend -o $out ${source}/backend/backend.proto";

  # The driver's folders stay behind: see runtimes.nix. A program, not a script: no shell comes along.
  backend = pkgs.stdenvNoCC.mkDerivation {
    pname = "exllama2";
    inherit version;
    nativeBuildInputs = [ pkgs.makeBinaryWrapper ];
    dontUnpack = true;
    installPhase = ''
      makeBinaryWrapper ${lib.getExe interpreter} $out/bin/exllama2 \
        --prefix LD_LIBRARY_PATH : ${extension}/lib \
        --set PYTHONPATH ${extension}:${modules} \
        --add-flags "-B -s -P ${./backend.py} ${protocol}"
    '';
    meta.mainProgram = "exllama2";
  };
in
{
  inherit
    backend
    compiled
    extension
    interpreter
    modules
    protocol
    version
    ;
  run = lib.getExe backend;
}
