# local-ai for nixpkgs: https://github.com/mudler/LocalAI with its backends for GGUF files and for pictures.
#
# As nixpkgs has packages: `cp -rL nix/nixpkgs/local-ai NIXPKGS/pkgs/by-name/lo/`. The other files are those that the
# images of aikit-nix are made with; what is done for images alone is not here. docs/library.md has the list.
{
  lib,
  stdenv,
  autoAddDriverRunpath,
  callPackage,
  config,
  cudaSupport ? config.cudaSupport,
  fetchFromGitHub,
  linkFarm,
  makeWrapper,
  testers,
}:

let
  pins = lib.importJSON ./pins.json;

  source = fetchFromGitHub {
    owner = "mudler";
    repo = "LocalAI";
    inherit (pins.localai) tag hash;
  };

  server = callPackage ./server.nix {
    inherit source;
    pin = pins.localai;
    strictConfig = false;
  };

  # With all variants, of which the best for the processor is loaded.
  instructions = import ./instructions.nix { inherit lib; };
  runtime = if cudaSupport then "cuda" else "cpu";

  llama-cpp =
    (callPackage ./llama-cpp.nix {
      inherit source runtime instructions;
      pin = pins.llama-cpp;
    }).overrideAttrs
      (old: {
        nativeBuildInputs = old.nativeBuildInputs ++ lib.optional cudaSupport autoAddDriverRunpath;
      });

  stablediffusion = callPackage ./stablediffusion.nix {
    inherit source runtime instructions;
    pin = pins.stablediffusion;
    ggmlPin = pins.stablediffusion-ggml;
  };

  # Each backend is a folder with a run.sh, which may be the program itself. LocalAI ignores a folder that is a symlink.
  backends = linkFarm "local-ai-backends" {
    "llama-cpp/run.sh" = lib.getExe llama-cpp;
    "stablediffusion-ggml/run.sh" = "${server.backends}/bin/stablediffusion-ggml";
    "stablediffusion-ggml/libgosd-fallback.so" = "${stablediffusion}/lib/libgosd.so";
  };
in
stdenv.mkDerivation (finalAttrs: {
  pname = "local-ai";
  inherit (server) version;

  dontUnpack = true;
  nativeBuildInputs = [ makeWrapper ];
  installPhase = ''
    runHook preInstall
    makeWrapper ${lib.getExe server} $out/bin/local-ai \
      --set-default LOCALAI_BACKENDS_SYSTEM_PATH ${backends}
    runHook postInstall
  '';

  passthru = {
    inherit
      backends
      llama-cpp
      server
      source
      stablediffusion
      ;
    tests.version = testers.testVersion {
      package = finalAttrs.finalPackage;
      version = "v${finalAttrs.version}";
    };
    updateScript = ./update.sh;
  };

  meta = server.meta // {
    changelog = "https://github.com/mudler/LocalAI/releases/tag/${pins.localai.tag}";
    maintainers = with lib.maintainers; [
      onny
      ck3d
    ];
  };
})
