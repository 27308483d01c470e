# The image's own small program, compiled.
{ pkgs }:

let
  compiled = pkgs.runCommandCC "aikit-nix" { hardeningDisable = [ "all" ]; } ''
    mkdir $out
    $CC $(cat ${./flags}) -o $out/aikit-nix ${./start.c}
  '';
in
"${compiled}/aikit-nix"
