# LocalAI as a package: the server, with its backends where it finds them. For overlays and for nixpkgs, in the way of
# callPackage: `override { runtime = "avx2"; stablediffusion = true; }`.
{
  lib,
  pkgs,
  stdenv,
  runCommand,
  makeWrapper,
  runtime ? if stdenv.hostPlatform.isx86_64 then "avx" else "cpu",
  stablediffusion ? false,
}:

let
  engine = import ./default.nix {
    inherit pkgs runtime;
    plan.backends = lib.optional stablediffusion "stablediffusion";
  };
  inherit (engine.parts) server;
  package =
    runCommand "local-ai-${server.version}"
      {
        pname = "local-ai";
        inherit (server) version meta;
        nativeBuildInputs = [ makeWrapper ];
        passthru = {
          inherit (engine) parts;
          tests.version = runCommand "local-ai-version" { } ''
            ${package}/bin/local-ai --version > $out 2>&1
            grep -F "v${server.version}" $out
          '';
        };
      }
      ''
        makeWrapper ${engine.bin} $out/bin/local-ai \
          --set-default LOCALAI_BACKENDS_SYSTEM_PATH ${engine.parts.backends}
      '';
in
package
