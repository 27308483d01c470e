# The package set `nixpkgs`: everything from one nixpkgs revision, the engine compiled for the runtime.
#
# nixpkgs   the flake input, or any folder whose default.nix takes nixpkgs' own arguments
#
# Given a system, nixpkgs is evaluated once for all runtimes but cuda, which is a configuration of its own.
{
  nixpkgs,
  plan,
}:
system:

let
  instantiate =
    config:
    import nixpkgs {
      inherit system config;
      # Not the user's own ones.
      overlays = [ ];
    };

  cpu = instantiate { };

  cuda = instantiate (
    {
      cudaSupport = true;
      # NVIDIA's licences and no others: who asks for CUDA has chosen, and needs no environment variable.
      allowUnfreePredicate = cpu._cuda.lib.allowUnfreeCudaPredicate;
    }
    // (if plan.cudaCapabilities == [ ] then { } else { inherit (plan) cudaCapabilities; })
  );
in
runtime:
let
  pkgs = if runtime == "cuda" then cuda else cpu;
in
{
  inherit pkgs;
  created = nixpkgs.lastModified or 1;
  engine = import ../engines { inherit pkgs plan runtime; };
}
