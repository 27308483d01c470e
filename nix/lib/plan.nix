# The plan of an aikitfile for LocalAI, without aikit-nix having run: what `gen` would write to plan.json, but for the
# label that names the aikitfile's text. Only builtins.
#
# aikitfile  an attribute set, or the path of an aikitfile that is written as JSON (which YAML can be)
# lock       the path of aikit.lock, or what it parses to
# name, tag  the image's; the first model's name, and the runtime, unless told otherwise
#
# Nix reads no YAML without building something first, and what llama-server is told is worked out by aikit-nix: for
# those two a plan is needed.
{
  aikitfile,
  lock,
  name ? null,
  tag ? null,
}:

let
  read =
    if builtins.isAttrs aikitfile then
      aikitfile
    else if builtins.match ".*[.]json" (toString aikitfile) != null then
      builtins.fromJSON (builtins.readFile aikitfile)
    else
      throw "${toString aikitfile} may be YAML, which Nix does not read: give it as JSON or as an attribute set, or give the plan that `aikit-nix gen` writes to aikit/plan.json";

  # A key without a value, or with an empty text, is none: as for aikit-nix.
  file = removeAttrs read (
    builtins.filter (key: read.${key} == null || read.${key} == "") (builtins.attrNames read)
  );

  known = [
    "apiVersion"
    "backends"
    "config"
    "debug"
    "models"
    "runtime"
  ];
  unknown = builtins.filter (key: !builtins.elem key known) (builtins.attrNames file);

  models = file.models or [ ];
  inherit (import ./lock.nix lock) pinned;
  first = if models == [ ] then "aikit" else (builtins.head models).name;

  # Where the image can be built: the first of each is that of an aikitfile without a runtime.
  offered =
    if builtins.elem "exllama2" backends then
      {
        x86_64-linux = [ "cuda" ];
      }
    else
      {
        x86_64-linux = [
          "avx"
          "avx2"
          "avx512"
          "cuda"
        ];
        aarch64-linux = [
          "cpu"
          "cuda"
        ];
      };
  platforms = builtins.mapAttrs (_: runtimes: {
    default = file.runtime or (builtins.head runtimes);
    inherit runtimes;
  }) offered;
  systems = removeAttrs platforms (
    builtins.filter (system: !builtins.elem platforms.${system}.default offered.${system}) (
      builtins.attrNames offered
    )
  );

  # What is built for both is exllama2.
  backends = builtins.sort builtins.lessThan (
    map (backend: if backend == "exllama" then "exllama2" else backend) (file.backends or [ ])
  );
  strange = builtins.filter (
    backend:
    !builtins.elem backend [
      "exllama2"
      "stablediffusion"
    ]
  ) backends;

  # As `gen --name` takes them; of a model's name no slash.
  part = "[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*";
  form = if name == null then part else "${part}(/${part})*";
  wanted = if name == null then first else name;
  imageName =
    if builtins.match form wanted != null then
      wanted
    else
      throw "${wanted} is no image's name: give as `name` lower-case letters, digits, `.`, `_`, `-`, `/`";

  # Shards may be listed one by one, and each entry of the lock has all of them.
  files = builtins.foldl' (
    found: file:
    if builtins.any (other: other.path == file.path) found then found else found ++ [ file ]
  ) [ ] (builtins.concatMap pinned models);

  # A template that stands twice is one file.
  templates =
    builtins.foldl'
      (
        found: each:
        if builtins.elem each found then
          found
        else if builtins.any (other: other.path == each.path) found then
          throw "two templates land on ${each.path}: rename one"
        else
          found ++ [ each ]
      )
      [ ]
      (
        builtins.concatMap (
          model:
          map (template: {
            path = "/models/${template.name}.tmpl";
            text = template.template;
          }) (model.promptTemplates or [ ])
        ) models
      );
in
assert file.apiVersion or null == "v1alpha1" || throw "the aikitfile is not of apiVersion v1alpha1";
assert
  unknown == [ ]
  || throw "of an aikitfile Nix reads ${toString known}, not ${toString unknown}: give the plan that `aikit-nix gen` writes";
assert strange == [ ] || throw "there is no backend ${toString strange}";
assert
  systems != { }
  || throw "LocalAI is not compiled for ${file.runtime}${
    if backends == [ ] then "" else " with ${toString backends}"
  }";
{
  formatVersion = 2;
  packages = "nixpkgs";
  engine = "localai";
  inherit backends systems;
  image = {
    name = imageName;
    inherit tag;
    labels = {
      "org.opencontainers.image.title" = imageName;
      "aikit-nix.models" = builtins.toJSON (
        builtins.listToAttrs (
          map (file: {
            name = file.path;
            value = "sha256:${file.sha256}";
          }) files
        )
      );
    };
  };
  models = files;
  files =
    templates
    ++ (
      if file ? config then
        [
          {
            path = "/config.yaml";
            text = file.config;
          }
        ]
      else
        [ ]
    );
  entrypoint = [ ];
  cmd = [ ];
  probe = [
    "8080"
    "/readyz"
    "--address"
    "LOCALAI_ADDRESS"
  ];
  env =
    (if file.debug or false then { DEBUG = "true"; } else { })
    // (if file ? config then { CONFIG_FILE = "/config.yaml"; } else { });
  cudaCapabilities = [ ];
}
