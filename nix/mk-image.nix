# For other flakes: an image, made with the caller's own nixpkgs.
#
# pkgs     nixpkgs; for the runtime cuda with config.cudaSupport and NVIDIA's licences allowed
# plan     the parsed plan.json, written for the package set nixpkgs; made of `aikitfile`, `lock`, `name` and `tag` unless
#          it is given: see lib/plan.nix
# runtime  one of the plan's; its default for the system unless told otherwise
#
# Returns { image, archive, stream, oci, manifest, models, config, serves, apps, … }: see image.nix.
{
  pkgs,
  aikitfile ? throw "mkImage takes a plan, or an aikitfile and its lock",
  lock ? throw "mkImage takes an aikitfile with its aikit.lock: `aikit-nix lock` makes it",
  name ? null,
  tag ? null,
  plan ? import ./lib/plan.nix {
    inherit
      aikitfile
      lock
      name
      tag
      ;
  },
  runtime ? plan.systems.${pkgs.stdenv.hostPlatform.system}.default,
}:

assert
  plan.formatVersion == 2 || throw "plans of format 2 are read, not ${toString plan.formatVersion}";
assert
  plan.systems ? ${pkgs.stdenv.hostPlatform.system}
  || throw "the plan has no image for ${pkgs.stdenv.hostPlatform.system}, only for ${toString (builtins.attrNames plan.systems)}";
assert
  builtins.elem runtime plan.systems.${pkgs.stdenv.hostPlatform.system}.runtimes
  || throw "the plan has no runtime ${runtime} for ${pkgs.stdenv.hostPlatform.system}, only ${
    toString plan.systems.${pkgs.stdenv.hostPlatform.system}.runtimes
  }";
assert
  plan.packages == "nixpkgs"
  || throw "the plan takes its packages from ${plan.packages}, not from nixpkgs";
assert
  runtime != "cuda"
  || pkgs.config.cudaSupport
  || throw "the runtime cuda needs a nixpkgs with config.cudaSupport = true";
assert
  runtime != "cuda"
  || plan.cudaCapabilities == [ ]
  || pkgs.config.cudaCapabilities == plan.cudaCapabilities
  || throw "the plan is for the CUDA capabilities ${toString plan.cudaCapabilities}: give a nixpkgs with them as config.cudaCapabilities";

import ./image.nix {
  inherit pkgs plan runtime;
  engine = import ./engines { inherit pkgs plan runtime; };
}
