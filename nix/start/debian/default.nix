# The image's own small program (../start.c) as it was compiled, for there is no compiler.
{ pkgs }:

let
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
        .${pkgs.stdenv.hostPlatform.system};
    };
    preferLocalBuild = true;
  };
in
"${carried}/aikit-nix"
