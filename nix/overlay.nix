# What this project compiles, for another nixpkgs: local-ai (nixpkgs' own is marked broken), and llama.cpp's server for one
# instruction set each: llama-server-avx and so on. llama-server-cuda wants config.cudaSupport.
final: _:

{
  local-ai = final.callPackage ./nixpkgs/local-ai/package.nix { };
}
// builtins.listToAttrs (
  map
    (runtime: {
      name = "llama-server-${runtime}";
      value =
        (import ./engines/llama-server.nix {
          pkgs = final;
          inherit runtime;
        }).package;
    })
    [
      "avx"
      "avx2"
      "avx512"
      "cuda"
    ]
)
