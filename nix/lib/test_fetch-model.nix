# `nix-instantiate --eval --strict`: the names of what is not as it should be.
let
  pkgs = {
    fetchurl = file: file;
    runCommand =
      name: env: _:
      { inherit name; } // env;
    linkFarm = name: links: { inherit name links; };
  };
  file =
    path: extra:
    {
      inherit path;
      sha256 = path;
    }
    // extra;
  fetch =
    name:
    import ./fetch-model.nix {
      inherit pkgs name;
      lock = {
        version = 1;
        models = [
          {
            name = "one";
            files = [ (file "/models/é.gguf" { url = "https://example.com/e"; }) ];
          }
          {
            name = "two";
            files = [
              (file "/models/two/b.gguf" { url = "https://example.com/b"; })
              (file "/models/two/a.gguf" {
                url = "https://example.com/a";
                private = true;
              })
            ];
          }
          {
            name = "three";
            files = [
              (file "/models/three/vae/m.safetensors" { })
              (file "/models/three/unet/m.safetensors" { })
              (file "/models/three/x.json" { })
            ];
          }
        ];
      };
    };
  two = fetch "two";
  cases = {
    "a file is itself, by its name in the store" =
      fetch "one" == {
        name = "--.gguf";
        url = "https://example.com/e";
        sha256 = "/models/é.gguf";
      };
    "several are a folder" = two.name == "two";
    "by the names of the image" =
      map (link: link.name) two.links == [
        "a.gguf"
        "b.gguf"
      ];
    "what needs a login is not downloaded by Nix" =
      (builtins.head two.links).path.outputHash == "/models/two/a.gguf";
    "in folders as in the image" =
      map (link: link.name) (fetch "three").links == [
        "unet/m.safetensors"
        "vae/m.safetensors"
        "x.json"
      ];
    "an unknown name" = !(builtins.tryEval (fetch "four")).success;
  };
in
builtins.filter (name: !cases.${name}) (builtins.attrNames cases)
