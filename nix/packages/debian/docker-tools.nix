# The part of nixpkgs' dockerTools that the image uses: same arguments, same docker-archive, one layer a store path.
{ pkgs, shell }:

let
  inherit (pkgs) runCommand writeText python3;

  # A script that writes the image to its standard output, and stores no copy of it.
  streamLayeredImage =
    {
      name,
      tag,
      config ? { },
      extraCommands ? "", # run in the root folder of the last layer
      includeStorePaths ? true,
      maxLayers ? 100, # at most 127: what Docker's overlay driver can mount
      created ? "1970-01-01T00:00:01Z",
      architecture ? pkgs.stdenv.hostPlatform.go.GOARCH,
    }:
    let
      configuration = writeText "${name}-config.json" (
        builtins.toJSON {
          inherit architecture config created;
          os = "linux";
        }
      );

      # A tar already, as the store would not keep the permissions.
      customisationLayer =
        runCommand "${name}-customisation-layer"
          {
            nativeBuildInputs = [ python3 ];
          }
          ''
            mkdir root
            cd root
            ${extraCommands}
            cd ..
            python3 ${./layered_image.py} layer root > $out
          '';

      plan =
        runCommand "${name}-layers.json"
          {
            nativeBuildInputs = [ python3 ];
            # The closure of whatever the configuration and the last layer mention.
            exportReferencesGraph =
              if includeStorePaths then
                [
                  "configuration"
                  configuration
                  "customisation"
                  customisationLayer
                ]
              else
                [ ];
            options = builtins.toJSON {
              inherit configuration customisationLayer maxLayers;
              repoTag = "${name}:${tag}";
            };
            passAsFile = [ "options" ];
          }
          ''
            python3 ${./layered_image.py} plan $optionsPath ${
              if includeStorePaths then "configuration customisation" else ""
            } > $out
          '';
    in
    runCommand "stream-${name}" { } ''
      cat > $out <<EOF
      #!${shell}/bin/sh
      exec ${python3}/bin/python3 -I ${./layered_image.py} stream ${plan}
      EOF
      chmod +x $out
    ''
    // {
      imageName = name;
      imageTag = tag;
    };
in
{
  inherit streamLayeredImage;
}
