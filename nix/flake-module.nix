# For flake-parts: `perSystem.aikit.images.<name>` becomes the packages <name> (an OCI layout) and <name>-archive (for
# `docker load`), and the apps <name>-load, <name>-push and <name>-run. An image is what ./mk-image.nix takes, without pkgs.
{ lib, flake-parts-lib, ... }:

{
  options.perSystem = flake-parts-lib.mkPerSystemOption (
    {
      config,
      pkgs,
      system,
      ...
    }:
    let
      # An image may not be for each of the flake's systems.
      isHere =
        name: image:
        let
          plan =
            image.plan or (import ./lib/plan.nix (
              removeAttrs ({ inherit name; } // image) [
                "runtime"
                "pkgs"
              ]
            ));
        in
        plan.systems ? ${system};
      images = lib.mapAttrs (name: image: import ./mk-image.nix ({ inherit name pkgs; } // image)) (
        lib.filterAttrs isHere config.aikit.images
      );
      each =
        outputs:
        lib.concatMapAttrs (
          name: image: lib.mapAttrs' (output: lib.nameValuePair (name + output)) (outputs image)
        ) images;
    in
    {
      options.aikit.images = lib.mkOption {
        type = lib.types.attrsOf (lib.types.lazyAttrsOf lib.types.raw);
        default = { };
        description = "OCI images: the arguments of `lib.mkImage`, by the image's name.";
        example = lib.literalExpression "{ tiny = { aikitfile = ./aikitfile.json; lock = ./aikitfile.lock; }; }";
      };
      config = {
        packages = each (image: {
          "" = image.oci;
          "-archive" = image.archive;
        });
        apps = each (image: lib.mapAttrs' (app: lib.nameValuePair "-${app}") image.apps);
      };
    }
  );
}
