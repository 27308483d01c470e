# The part of nixpkgs' dockerTools that the image uses: same arguments, same docker-archive, one layer a store path.
{ pkgs, shell }:

let
  inherit (pkgs) runCommand writeText python3;

  arguments =
    {
      name,
      tag,
      config ? { },
      extraCommands ? "", # run in the root folder of the last layer
      contents ? [ ],
      maxLayers ? 100, # at most 127 can be mounted by Docker's overlay driver
      created ? "1970-01-01T00:00:01Z",
      architecture ? "amd64",
      compressor ? "none",
    }@given:
    assert contents == [ ]; # files come through extraCommands
    assert compressor == "none";
    given;

  streamLayeredImage =
    given:
    let
      image = {
        extraCommands = "";
        config = { };
        maxLayers = 100;
        created = "1970-01-01T00:00:01Z";
        architecture = "amd64";
      }
      // arguments given;

      config = writeText "${image.name}-config.json" (
        builtins.toJSON {
          inherit (image) architecture config created;
          os = "linux";
        }
      );

      # A tar already, as the store would not keep the permissions.
      customisationLayer =
        runCommand "${image.name}-customisation-layer"
          {
            nativeBuildInputs = [ python3 ];
          }
          ''
            mkdir root
            cd root
            ${image.extraCommands}
            cd ..
            python3 ${./layered_image.py} layer root > $out
          '';

      plan =
        runCommand "${image.name}-layers.json"
          {
            nativeBuildInputs = [ python3 ];
            # The closure of whatever the configuration and the last layer mention.
            exportReferencesGraph = [
              "config"
              config
              "customisation"
              customisationLayer
            ];
            options = builtins.toJSON {
              inherit config customisationLayer;
              inherit (image) maxLayers;
              repoTag = "${image.name}:${image.tag}";
            };
            passAsFile = [ "options" ];
          }
          ''
            python3 ${./layered_image.py} plan $optionsPath config customisation > $out
          '';
    in
    runCommand "stream-${image.name}" { } ''
      cat > $out <<EOF
      #!${shell}/bin/sh
      exec ${python3}/bin/python3 -I ${./layered_image.py} stream ${plan}
      EOF
      chmod +x $out
    ''
    // {
      imageName = image.name;
      imageTag = image.tag;
    };

  buildLayeredImage =
    given:
    let
      stream = streamLayeredImage given;
    in
    runCommand "${given.name}.tar" { } "${stream} > $out"
    // {
      inherit stream;
      inherit (stream) imageName imageTag;
    };
in
{
  inherit streamLayeredImage buildLayeredImage;
}
