# The engine that a plan names, compiled by nixpkgs.
{
  pkgs,
  plan,
  runtime,
}:

{
  llama-server = import ./llama-server.nix { inherit pkgs runtime; };
  localai = import ./localai { inherit pkgs runtime plan; };
}
.${plan.engine}
