# The model files, each with the layer that image/model_layer.py makes of it; sorted by path, as they lie in the image.
#
# path         where it is in the image
# file         a fixed-output derivation, named by its file and found by its sha256
# layer        the layer's digest and size: known to the plan, or a JSON file that a derivation computes once
# blob         the layer as a file; a fixed output where the plan knows its digest
{ pkgs, models }:

let
  derive =
    model: what: options:
    pkgs.runCommand "${builtins.substring 0 180 model.name}-${what}" (
      {
        nativeBuildInputs = [ pkgs.python3 ];
        modelPath = model.path;
        modelFile = fileOf model;
        # Not worth sending a model to another machine.
        preferLocalBuild = true;
        allowSubstitutes = false;
      }
      // options
    ) ''python3 ${./image/model_layer.py} ${what} "$modelPath" $modelFile > $out'';

  fileOf =
    model:
    if model.url == null then
      # Not nixpkgs' requireFile, which calls what it asks for unfree.
      pkgs.runCommand model.name {
        message = model.fetch;
        outputHashMode = "flat";
        outputHashAlgo = "sha256";
        outputHash = model.sha256;
        preferLocalBuild = true;
        allowSubstitutes = false;
      } ''printf '%s\n' "$message" >&2; exit 1''
    else
      pkgs.fetchurl { inherit (model) name url sha256; };
in
map (model: {
  inherit (model) path;
  file = fileOf model;
  layer = if model.layer == null then "${derive model "describe" { }}" else model.layer;
  blob = derive model "layer" (
    if model.layer == null then
      { }
    else
      {
        outputHashMode = "flat";
        outputHashAlgo = "sha256";
        outputHash = builtins.substring 7 64 model.layer.digest; # without `sha256:`
      }
  );
}) (builtins.sort (a: b: a.path < b.path) models)
