# The outputs of a generated flake, from its plan.
#
# plan     the parsed plan.json, see generator/aikit_nix/flakes/plan.py
# nixpkgs  the flake input; null for the debian package set, which has none
# source   the flake's folder, to see whether the plan is older than what it was made from
#
# A generated flake has only the files that its plan needs (generator/aikit_nix/flakes/library.py): one that belongs to a
# package set, an engine or a backend has that one's name in its path.
{
  plan,
  nixpkgs ? null,
  source ? null,
}:

assert
  plan.formatVersion == 2
  || throw "this library reads plans of format 2, and the plan has ${toString plan.formatVersion}: run `aikit-nix gen` again";

assert
  plan.packages != "nixpkgs"
  || nixpkgs != null
  || throw "flake.nix has no input nixpkgs, which the plan needs: run `aikit-nix gen` again (it was interrupted, or flake.nix was edited)";

let
  # The aikitfile and its lock, where the flake's source has them and they changed since.
  changed = builtins.filter (
    file:
    source != null
    && builtins.pathExists (source + "/${file.path}")
    && builtins.hashFile "sha256" (source + "/${file.path}") != file.sha256
  ) (plan.sources or [ ]);
in
assert
  changed == [ ]
  || throw "${(builtins.head changed).path} has changed since this flake was written: run `aikit-nix gen`";

let
  # system -> runtime -> { pkgs, engine }
  packageSet =
    {
      nixpkgs = import ./packages/nixpkgs.nix { inherit nixpkgs plan; };
      debian = system: runtime: import ./packages/debian { inherit system runtime; };
    }
    .${plan.packages};

  # `runtimes` are those that this aikitfile can be built for; evaluation is lazy, so the others cost nothing.
  perSystem =
    system:
    { default, runtimes }:
    let
      packagesFor = packageSet system;
      images = builtins.listToAttrs (
        map (runtime: {
          name = "image-${runtime}";
          value = import ./image.nix ({ inherit plan runtime; } // packagesFor runtime);
        }) runtimes
      );
      image = images."image-${default}";
    in
    {
      packages = builtins.mapAttrs (_: { image, ... }: image) images // {
        inherit (image)
          archive
          stream
          oci
          manifest
          models
          config
          ;
        default = image.oci;
        engine = image.server;
      };
      apps = image.apps // {
        default = image.apps.run;
      };
      inherit (image) checks;
      formatter =
        let
          inherit (packagesFor default) pkgs;
        in
        pkgs.nixfmt-tree.override { nixfmtPackage = pkgs.nixfmt-rs; };
    };

  systems = builtins.mapAttrs perSystem plan.systems;
  bySystem = output: builtins.mapAttrs (_: outputs: outputs.${output}) systems;
in
{
  packages = bySystem "packages";
  apps = bySystem "apps";
  checks = bySystem "checks";
}
# Debian's packages have no formatter of Nix code.
// (if nixpkgs == null then { } else { formatter = bySystem "formatter"; })
