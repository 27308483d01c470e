# The outputs of a generated flake, from its plan (aikit.json).
#
# plan     the parsed aikit.json, see generator/aikit_nix/plan.py
# nixpkgs  the flake input; null for the debian package set, which has none
{
  plan,
  nixpkgs ? null,
}:

let
  environments = import ./runtimes.nix;

  packageSet =
    {
      nixpkgs = args: import ./packages/nixpkgs.nix (args // { inherit nixpkgs; });
      debian = import ./packages/debian;
    }
    .${plan.packages};

  eachSystem = builtins.mapAttrs perSystem plan.systems;

  # `runtimes` are those that this aikitfile can be built for; evaluation is lazy, so the others cost nothing.
  perSystem =
    system:
    { default, runtimes }:
    let
      images = builtins.listToAttrs (
        map (runtime: {
          name = "image-${runtime}";
          value = import ./image.nix {
            inherit plan runtime;
            env = environments.${runtime};
            inherit (packageSet { inherit system runtime plan; }) pkgs engine;
          };
        }) runtimes
      );

      image = images."image-${default}";
    in
    {
      packages = builtins.mapAttrs (_: { image, ... }: image) images // {
        inherit (image)
          stream
          oci
          models
          config
          ;
        default = image.image;
        engine = image.engine.package;
      };
      checks = {
        inherit (image) serves;
      };
    };
in
{
  packages = builtins.mapAttrs (_: outputs: outputs.packages) eachSystem;
  checks = builtins.mapAttrs (_: outputs: outputs.checks) eachSystem;
}
