# The model files: one fixed-output derivation each, named by its file and found by its sha256.
{ pkgs, models }:

map (model: {
  inherit (model) path;
  file =
    if model.url == null then
      pkgs.requireFile {
        inherit (model) name sha256;
        message = ''
          The model ${model.name} is a local file that is not in this machine's Nix store.
          Run `aikit-nix gen` again beside it, or add the file by hand:
            nix-store --add-fixed sha256 ${model.name}
          Its sha256 must be ${model.sha256}.
        '';
      }
    else
      pkgs.fetchurl { inherit (model) name url sha256; };
}) models
