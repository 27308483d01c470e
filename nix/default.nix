# The outputs of a generated flake, from its plan (aikit.json).
#
# plan     the parsed aikit.json, see generator/aikit_nix/plan.py
# nixpkgs  the flake input; null for the debian package set, which has none
{
  plan,
  nixpkgs ? null,
}:

let
  runtimes = import ./runtimes.nix;

  packageSet =
    {
      nixpkgs = args: import ./packages/nixpkgs.nix (args // { inherit nixpkgs; });
      debian = import ./packages/debian;
    }
    .${plan.packages};

  eachSystem = builtins.mapAttrs (system: _: perSystem system) plan.runtimes;

  perSystem =
    system:
    let
      offered = builtins.filter (
        runtime:
        builtins.elem system runtimes.${runtime}.systems
        && builtins.elem plan.packages runtimes.${runtime}.packages
      ) (builtins.attrNames runtimes);

      images = builtins.listToAttrs (
        map (runtime: {
          name = "image-${runtime}";
          value = import ./image.nix {
            inherit plan runtime;
            inherit (runtimes.${runtime}) env;
            inherit (packageSet { inherit system runtime plan; }) pkgs engine;
          };
        }) offered
      );

      default = images."image-${plan.runtimes.${system}}";
    in
    {
      packages = builtins.mapAttrs (_: image: image.image) images // {
        inherit (default)
          stream
          oci
          models
          config
          ;
        default = default.image;
        engine = default.engine.package;
      };
      checks = {
        inherit (default) serves;
      };
    };
in
{
  packages = builtins.mapAttrs (_: outputs: outputs.packages) eachSystem;
  checks = builtins.mapAttrs (_: outputs: outputs.checks) eachSystem;
}
