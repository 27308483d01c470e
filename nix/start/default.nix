# The image's own small program: start.c says what it does.
#
# packages  "debian": as it was compiled, for there is no compiler; "nixpkgs": compiled
{ pkgs, packages }:

let
  inherit (pkgs.stdenv.hostPlatform) system;

  carried = derivation {
    name = "aikit-nix";
    system = "builtin";
    builder = "builtin:unpack-channel";
    channelName = "aikit-nix";
    src = builtins.path {
      name = "start.txt";
      path =
        {
          x86_64-linux = ./x86_64-linux.txt;
          aarch64-linux = ./aarch64-linux.txt;
        }
        .${system};
    };
    preferLocalBuild = true;
  };

  compiled = pkgs.runCommandCC "aikit-nix" { hardeningDisable = [ "all" ]; } ''
    mkdir $out
    $CC $(cat ${./flags}) -o $out/aikit-nix ${./start.c}
  '';
in
"${if packages == "debian" then carried else compiled}/aikit-nix"
