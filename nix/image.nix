# One image for both package sets, through the dockerTools interface that they share.
#
# pkgs     nixpkgs, or the part of it that packages/debian offers
# engine   { name, bin, package, env, root ? null }: the server and what the image needs for it
# env      the runtime's own environment variables
{
  pkgs,
  engine,
  env,
  plan,
  runtime,
}:

let
  models = import ./models.nix {
    inherit pkgs;
    inherit (plan) models;
  };

  # A tree of real files (texts) and symlinks into the store. Values travel as JSON, never through a shell.
  tree =
    name: spec:
    pkgs.runCommand name {
      nativeBuildInputs = [ pkgs.python3 ];
      spec = pkgs.writeText "${name}.json" (builtins.toJSON spec);
    } "python3 ${./tree.py} $spec $out";

  modelLinks = map (model: {
    inherit (model) path;
    target = "${model.file}";
  }) models;

  root = tree "image-root" {
    folders = [
      "/models"
      "/tmp"
    ];
    files = plan.files ++ [
      {
        path = "/etc/passwd";
        text = "aikit:x:65532:65532:aikit:/tmp:/sbin/nologin\n";
      }
      {
        path = "/etc/group";
        text = "aikit:x:65532:\n";
      }
      {
        # LocalAI looks localhost up. Container engines mount their own file here; a plain runtime does not.
        path = "/etc/hosts";
        text = "127.0.0.1 localhost\n::1 localhost\n";
      }
    ];
    links = modelLinks ++ [
      {
        path = "/usr/bin/${engine.name}";
        target = engine.bin;
      }
      {
        path = "/etc/ssl/certs/ca-certificates.crt";
        target = "${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt";
      }
    ];
  };

  environment = {
    PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    HOME = "/tmp";
    TMPDIR = "/tmp";
    SSL_CERT_FILE = "/etc/ssl/certs/ca-certificates.crt";
  }
  // env
  // engine.env
  // plan.env;

  tag = if plan.image.tag == null then runtime else plan.image.tag;

  arguments = {
    inherit (plan.image) name;
    inherit tag;
    # Docker's overlay driver takes 127 layers. The largest store paths, the models, are the first to get their own.
    maxLayers = 120;
    # The last, tiny layer. The store made everything read-only; AIKit's files are 0644.
    extraCommands = ''
      for tree in ${root} ${engine.root or ""}; do
        cp -a "$tree"/. .
        chmod -R u+w .
      done
      chmod 1777 tmp
    '';
    config = {
      Entrypoint = [ engine.name ];
      Cmd = plan.args;
      Env = map (name: "${name}=${environment.${name}}") (builtins.attrNames environment);
      ExposedPorts."8080/tcp" = { };
      User = "65532:65532";
      WorkingDir = "/";
      Labels = plan.image.labels // {
        "org.opencontainers.image.version" = tag;
        "aikit-nix.engine" = plan.engine;
        "aikit-nix.packages" = plan.packages;
        "aikit-nix.runtime" = runtime;
      };
    };
  };

  stream = pkgs.dockerTools.streamLayeredImage arguments;
in
{
  inherit engine stream;

  # Model weights do not compress: a compressor would cost minutes and save nothing.
  image = pkgs.dockerTools.buildLayeredImage (arguments // { compressor = "none"; });

  oci = pkgs.runCommand "${plan.image.name}-oci" {
    nativeBuildInputs = [ pkgs.python3 ];
  } "${stream} | python3 ${./oci-layout.py} $out";

  models = tree "models" {
    folders = [ ];
    files = [ ];
    links = modelLinks;
  };

  config = tree "config" {
    folders = [ ];
    inherit (plan) files;
    links = [ ];
  };

  # Starts the server in the sandbox and asks it something.
  serves = pkgs.runCommand "serves" {
    nativeBuildInputs = [ pkgs.python3 ];
    spec = pkgs.writeText "serves.json" (
      builtins.toJSON {
        inherit (engine) bin;
        inherit root;
        inherit (plan) args;
        env = environment;
      }
    );
  } "python3 ${./serves.py} $spec $out";
}
