# A model of aikit.lock, served on a NixOS machine. `aikit-nix lock` writes aikit.lock beside the aikitfile.
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";
  # Where you have aikit-nix: a git repository, or a folder.
  inputs.aikit-nix.url = "git+https://git.example.com/aikit-nix";
  inputs.aikit-nix.inputs.nixpkgs.follows = "nixpkgs";

  outputs = { nixpkgs, aikit-nix, ... }: {
    nixosConfigurations.machine = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [
        aikit-nix.nixosModules.default
        {
          services.aikit = {
            enable = true;
            lock = ./aikit.lock;
            model = "llama-2-7b-chat";
          };
        }
      ];
    };
  };
}
