# The package set `nixpkgs`: everything from one nixpkgs revision, the engine compiled for the runtime.
#
# nixpkgs   the flake input, or any folder whose default.nix takes nixpkgs' own arguments
{
  nixpkgs,
  system,
  runtime,
  plan,
}:

let
  pkgs = import nixpkgs {
    inherit system;
    # Not the user's own ones.
    overlays = [ ];
    config = {
      # CUDA is, and requireFile calls a local model so. Who asks for them has chosen: `nix build` needs no
      # environment variable.
      allowUnfree = true;
      cudaSupport = runtime == "cuda";
    }
    // (if plan.cudaCapabilities == [ ] then { } else { inherit (plan) cudaCapabilities; });
  };
in
{
  inherit pkgs;
  engine =
    {
      llama-server = import ../engines/llama-server.nix { inherit pkgs runtime; };
      localai = import ../engines/localai { inherit pkgs runtime plan; };
    }
    .${plan.engine};
}
