# Images of aikitfiles among a flake's packages: `nix build .#llama`, `nix run .#llama-load`.
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";
  inputs.flake-parts.url = "github:hercules-ci/flake-parts";
  # Where you have aikit-nix: a git repository, or a folder.
  inputs.aikit-nix.url = "git+https://git.example.com/aikit-nix";
  inputs.aikit-nix.inputs.nixpkgs.follows = "nixpkgs";

  outputs =
    inputs:
    inputs.flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ inputs.aikit-nix.flakeModules.default ];
      systems = [ "x86_64-linux" ];
      perSystem.aikit.images.llama = {
        aikitfile = ./aikitfile.json;
        lock = ./aikitfile.lock;
      };
    };
}
