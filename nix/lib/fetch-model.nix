# A model of an aikit.lock as a store path: the file, or where it has several the folder that they have in common in the
# image. Fixed outputs, which Nix downloads or `aikit-nix fetch` brings; nothing is built to evaluate it.
#
# pkgs  nixpkgs
# lock  the path of aikit.lock, or what it parses to
# name  the model's, as in the aikitfile
{
  pkgs,
  lock,
  name,
}:

let
  files = import ../models.nix {
    inherit pkgs;
    models = (import ./lock.nix lock).named name;
  };

  isIn = folder: model: builtins.substring 0 (builtins.stringLength folder) model.path == folder;
  common =
    folder: if builtins.all (isIn "${folder}/") files then "${folder}/" else common (dirOf folder);
  length = builtins.stringLength (common (dirOf (builtins.head files).path));
in
if builtins.length files == 1 then
  (builtins.head files).file
else
  pkgs.linkFarm name (
    map (model: {
      name = builtins.substring length (-1) model.path;
      path = model.file;
    }) files
  )
