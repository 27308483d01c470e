# aikit.lock read by Nix: the models as models.nix and a plan have them. Only builtins.
#
# lock  the path of an aikit.lock, or what builtins.fromJSON made of one
#
# Returns { models, named, pinned }: all files; a model's by the name that the aikitfile has for it; those of a model of the
# aikitfile, with which the lock must agree.
lock:

let
  parsed = if builtins.isAttrs lock then lock else builtins.fromJSON (builtins.readFile lock);

  entries =
    assert
      parsed.version == 1 || throw "aikit.lock of version 1 is read, not of ${toString parsed.version}";
    parsed.models;

  # A file's name as the Nix store allows it: generator/aikit_nix/nix/store.py has the same rule, so that what `aikit-nix
  # fetch` brought into the store is found there. Both count bytes: Nix knows no characters.
  storeName =
    file:
    let
      pieces = builtins.filter builtins.isString (builtins.split "[^0-9A-Za-z+._?=-]" file);
      text = withoutDots (builtins.concatStringsSep "-" pieces);
      length = builtins.stringLength text;
      last = withoutDots (if length > 200 then builtins.substring (length - 200) 200 text else text);
      fitting = if last == "" then "model" else last;
    in
    if builtins.match ".*[.]drv" fitting != null then "${fitting}-" else fitting;

  withoutDots = text: builtins.head (builtins.match "[.]*(.*)" text);

  names = builtins.concatStringsSep ", " (map (entry: entry.name) entries);
  files = builtins.concatMap (entry: map modelOf entry.files);

  modelOf =
    { path, sha256, ... }@file:
    let
      name = storeName (baseNameOf path);
    in
    {
      inherit path name sha256;
      url = if file.private or false then null else file.url or null;
      size = file.size or null;
      layer = file.layer or null;
      fetch = ''
        The model ${name} is in no place that Nix can download from, and not in this machine's Nix store.
        Run `aikit-nix fetch` beside the aikitfile, or add the file by hand:
          nix-store --add-fixed sha256 ${name}
        Its sha256 must be ${sha256}.'';
    };
in
{
  models = files entries;

  named =
    name:
    let
      found = builtins.filter (entry: entry.name == name) entries;
    in
    if found == [ ] then throw "aikit.lock has no model ${name}, only ${names}" else files found;

  pinned =
    {
      name,
      source,
      sha256 ? null,
      ...
    }:
    let
      found = files (builtins.filter (entry: entry.name == name && entry.source == source) entries);
    in
    if found == [ ] then
      throw "aikit.lock has no model ${name} from ${source}, only ${names}: run `aikit-nix lock`"
    else if sha256 != null && !builtins.any (file: file.sha256 == sha256) found then
      throw "the sha256 of the model ${name} is not that of aikit.lock: correct the one that is wrong"
    else
      found;
}
