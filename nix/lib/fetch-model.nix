# A model of an aikit.lock as a store path: the file, or a folder of its files where it has several. Fixed outputs, which
# Nix downloads or `aikit-nix fetch` brings; nothing is built to evaluate it.
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
in
if builtins.length files == 1 then
  (builtins.head files).file
else
  pkgs.linkFarm name (
    map (model: {
      name = baseNameOf model.path;
      path = model.file;
    }) files
  )
