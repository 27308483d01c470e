# One image for both package sets: model layers by our own rule at the bottom, above them the engine and the texts. Of an
# engine out of store paths nixpkgs' dockerTools make the layers; one out of Debian's files brings its own.
#
# pkgs     nixpkgs, or the part of it that packages/debian offers
# engine   { name, bin, package, version, license (SPDX), env, layers ?, labels ? }: the server and what the image needs for it; `layers`,
#          where they are there, have the server's and the certificates' files, and the image then needs no store path
# plan     the parsed plan.json
# runtime  one of the plan's
# created  the time that the image claims: that of its packages, in seconds since 1970 or by RFC 3339. Engines delete images
#          by their age, so it is no constant
{
  pkgs,
  engine,
  plan,
  runtime,
  created ? 1,
}:

let
  # Docker's overlay driver mounts 127 layers.
  mostLayers = 127;
  mostModels = 100;

  models =
    assert
      builtins.length plan.models <= mostModels
      || throw "the plan has ${toString (builtins.length plan.models)} models, and an image has layers for ${toString mostModels}";
    import ./models.nix {
      inherit pkgs;
      inherit (plan) models;
    };

  # An image's name may hold slashes and be longer than a store path's.
  name = builtins.substring 0 100 (baseNameOf plan.image.name);
  tag = if plan.image.tag == null then runtime else plan.image.tag;

  # Moments of work on files that are here: not worth sending a model to another machine.
  local.preferLocalBuild = true;

  python =
    name: script: spec:
    pkgs.runCommand name {
      inherit (local) preferLocalBuild;
      nativeBuildInputs = [ pkgs.python3 ];
      spec = builtins.toJSON spec;
      passAsFile = [ "spec" ];
    } "python3 ${script} $specPath $out";

  # A tree of real files (texts) and symlinks. Values travel as JSON, never through a shell.
  tree =
    name: spec:
    python name ./image/tree.py (
      {
        folders = [ ];
        files = [ ];
        links = [ ];
      }
      // spec
    );

  # One layer of the files that shell commands put into the folder that they run in.
  layer =
    name: commands:
    pkgs.runCommand "${name}-layer"
      {
        inherit (local) preferLocalBuild;
        nativeBuildInputs = [ pkgs.python3 ];
      }
      ''
        mkdir root
        cd root
        ${commands}
        cd ..
        python3 ${./image/folder_layer.py} ${name} root $out
      '';

  # The store made everything read-only; AIKit's files are 0644.
  copy = tree: ''
    cp -a ${tree}/. .
    chmod -R u+w .
  '';

  # Checks the processor before the server starts, and asks the server whether it is well: there is no shell to do it.
  starter = "/usr/libexec/aikit-nix";
  inherit (builtins.fromJSON (builtins.readFile ./targets.json)) architectures processors;

  # What follows from the engine alone, above its programs: the image's fixed files. No change of a text touches them.
  engineTree = {
    folders = [
      "/models"
      "/tmp"
    ];
    files = [
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
      {
        # First on the PATH where the server has its own file in /usr/bin.
        path = "/usr/${if engine ? layers then "local/bin" else "bin"}/${engine.name}";
        executable = true;
        text = ''
          #!${starter} start
          exec ${if engine ? layers then "/usr/bin/${engine.name}" else engine.bin}
          for ${runtime}
          needs ${builtins.concatStringsSep " " (processors.${runtime} or [ ])}
          port ${
            builtins.concatStringsSep " " (
              map (builtins.elemAt plan.probe) [
                0
                2
                3
              ]
            )
          }
        '';
      }
    ];
    links = [
      {
        path = starter;
        target =
          import
            {
              debian = ./start/debian;
              nixpkgs = ./start/nixpkgs.nix;
            }
            .${plan.packages}
            { inherit pkgs; };
      }
    ]
    ++ (
      if engine ? layers then
        [ ] # has them
      else
        [
          {
            path = "/etc/ssl/certs/ca-certificates.crt";
            target = "${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt";
          }
        ]
    );
  };
  engineFiles = ''
    ${copy (tree "engine-root" engineTree)}
    chmod 1777 tmp
  '';
  engineLayers =
    if engine ? layers then
      # No store path in the image: the starter is a file of its own.
      layer "engine" (
        engineFiles
        + ''
          file=$(readlink .${starter})
          rm .${starter}
          cp $file .${starter}
          chmod 755 .${starter}
        ''
      )
    else
      let
        stream = pkgs.dockerTools.streamLayeredImage {
          name = "engine";
          tag = "layers";
          # The texts are one more.
          maxLayers = mostLayers - mostModels - 1;
          # Whose closure the layers are, besides that of the last one.
          config.Env = builtins.filter builtins.hasContext (builtins.attrValues engine.env);
          extraCommands = engineFiles;
        };
      in
      pkgs.runCommand "engine-layers" {
        nativeBuildInputs = [ pkgs.python3 ];
      } "${stream} | python3 ${./image/layers.py} engine $out";

  textLayer = layer "texts" (
    copy (
      tree "texts" {
        inherit (plan) files;
        links =
          if plan.models == [ ] || builtins.any (model: model.path == modelLink) plan.models then
            [ ]
          else
            [
              {
                path = modelLink;
                # Relative, as the folder may be mounted anywhere.
                target = builtins.substring 8 (-1) (builtins.head plan.models).path;
              }
            ];
      }
    )
  );
  # Where RamaLama looks for the model of an image.
  modelLink = "/models/model.file";

  environment = {
    PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    HOME = "/tmp";
    TMPDIR = "/tmp";
    SSL_CERT_FILE = "/etc/ssl/certs/ca-certificates.crt";
  }
  // (import ./runtimes.nix).${runtime}.env
  // engine.env
  // plan.env;

  # `blobs`: whether the models' layers are there too.
  layout =
    blobs:
    python "${name}-${if blobs then "oci" else "manifest"}" ./image/layout.py {
      inherit (plan.image) name;
      inherit tag;
      architecture = architectures.${pkgs.stdenv.hostPlatform.system};
      inherit created;
      config = {
        # All settings, so that a user's arguments come on top of them.
        Entrypoint = [ engine.name ] ++ plan.entrypoint;
        Cmd = plan.cmd;
        # Docker's and podman's; in nanoseconds.
        Healthcheck = {
          Test = [
            "CMD"
            starter
            "probe"
          ]
          ++ plan.probe;
          Interval = 30 * 1000000000;
          Timeout = 10 * 1000000000;
          # A large model takes its time to load.
          StartPeriod = 600 * 1000000000;
        };
        Env = map (name: "${name}=${environment.${name}}") (builtins.attrNames environment);
        ExposedPorts."8080/tcp" = { };
        User = "65532:65532";
        WorkingDir = "/";
        Labels =
          plan.image.labels
          // engine.labels or { }
          // {
            # RamaLama lists such images.
            "org.containers.type" = "ai.image.model.car";
            # The server's. Those of the libraries lie in /usr/share/doc where the packages have them.
            "org.opencontainers.image.licenses" = engine.license;
            "org.opencontainers.image.version" = tag;
            "aikit-nix.engine" = plan.engine;
            "aikit-nix.engine.version" = engine.version;
            "aikit-nix.packages" = plan.packages;
            "aikit-nix.runtime" = runtime;
          };
      };
      models = map (model: {
        inherit (model) path layer;
        blob = if blobs then "${model.blob}" else null;
      }) models;
      base = (if engine ? layers then [ "${engine.layers}" ] else [ ]) ++ [
        "${engineLayers}"
        "${textLayer}"
      ];
    };

  manifest = layout false;

  # docker_archive.py imports the rule of the model layer.
  archiver = pkgs.runCommand "docker-archive" { } ''
    mkdir $out
    cp ${./image/docker_archive.py} $out/docker_archive.py
    cp ${./image/model_layer.py} $out/model_layer.py
  '';
  stream = pkgs.writeShellScript "stream-${name}" ''
    exec ${pkgs.python3}/bin/python3 -IB ${archiver}/docker_archive.py ${
      pkgs.writeText "stream-${name}.json" (
        builtins.toJSON {
          layout = "${manifest}";
          name = "${plan.image.name}:${tag}";
          models = map (model: {
            inherit (model) path;
            file = "${model.file}";
          }) models;
        }
      )
    } "$@"
  '';

  modelLinks = map (model: {
    inherit (model) path;
    target = "${model.file}";
  }) models;

  # For `nix flake show` and `nix search`.
  described =
    what: package:
    package
    // {
      meta = package.meta or { } // {
        description = "${plan.image.name}:${tag}, ${engine.name} ${engine.version} for ${runtime}: ${what}";
      };
    };

  outputs = {
    inherit engine;

    image = outputs.oci // outputs;

    oci = described "the OCI layout" (layout true);

    manifest = described "the OCI layout without its models' bytes" manifest;

    stream = described "a script that writes the archive for `docker load`" stream;

    archive = described "the archive for `docker load`" (
      pkgs.runCommand "${name}.tar" local "${stream} > $out"
    );

    models = described "the models' files" (tree "models" { links = modelLinks; });

    config = described "the texts of the aikitfile" (tree "config" { inherit (plan) files; });

    server = described "the server" engine.package;

    apps = import ./apps.nix {
      inherit
        pkgs
        runtime
        stream
        tag
        ;
      inherit (outputs) oci;
      inherit (plan.image) name;
    };

    # Not where the image is of another processor's programs.
    checks =
      if pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform then
        { inherit (outputs) serves; }
      else
        { };

    # Starts the server in the sandbox and asks it something.
    serves = described "whether the server answers" (
      python "serves" ./serves.py {
        inherit (engine) bin;
        root = tree "image-root" {
          inherit (engineTree) folders;
          files = engineTree.files ++ plan.files;
          links = engineTree.links ++ modelLinks;
        };
        args = plan.entrypoint ++ plan.cmd;
        inherit (plan) probe;
        env = environment;
      }
    );
  };
in
outputs
