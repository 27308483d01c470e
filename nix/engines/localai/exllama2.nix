# The ExLlamaV2 backend: LocalAI's Python program of v3.8.0 (dropped upstream after v3.10) over nixpkgs' exllamav2,
# speaking the protocol of the LocalAI that is built here. It also serves `exllama`: the second generation loads the
# GPTQ models of the first.
{
  pkgs,
  source,
  pin,
}:

let
  python = pkgs.python3.withPackages (packages: [
    packages.exllamav2
    packages.grpcio
    packages.protobuf
  ]);

  program = pkgs.fetchurl {
    url = "https://raw.githubusercontent.com/mudler/LocalAI/${pin.tag}/backend/python/exllama2/backend.py";
    inherit (pin) hash;
  };
in
pkgs.stdenvNoCC.mkDerivation {
  pname = "localai-exllama2";
  version = pkgs.lib.removePrefix "v" pin.tag;

  dontUnpack = true;
  nativeBuildInputs = [ (pkgs.python3.withPackages (packages: [ packages.grpcio-tools ])) ];

  buildPhase = ''
    runHook preBuild
    python3 -m grpc_tools.protoc -I ${source}/backend --python_out=. --grpc_python_out=. backend.proto
    runHook postBuild
  '';

  # Predict answers with another message type, and PredictStream with one message where a stream is due.
  installPhase = ''
    runHook preInstall
    mkdir $out
    cp backend_pb2.py backend_pb2_grpc.py $out
    substitute ${program} $out/run.sh \
      --replace-fail '#!/usr/bin/env python3' '#!${python}/bin/python3' \
      --replace-fail 'backend_pb2.Result(message=bytes(' 'backend_pb2.Reply(message=bytes(' \
      --replace-fail 'return self.Predict(request, context)' 'yield self.Predict(request, context)'
    chmod +x $out/run.sh
    runHook postInstall
  '';

  meta = {
    description = "ExLlamaV2 as a backend of LocalAI";
    homepage = "https://github.com/turboderp-org/exllamav2";
    license = pkgs.lib.licenses.mit;
    platforms = [ "x86_64-linux" ];
  };
}
