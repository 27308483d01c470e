# `nix-instantiate --eval --strict`: the names of what is not as it should be.
let
  file =
    path: extra:
    {
      inherit path;
      sha256 = "00";
    }
    // extra;
  lock = import ./lock.nix {
    version = 1;
    models = [
      {
        name = "one";
        files = [
          (file "/models/a b~1.gguf" {
            url = "https://example.com/a";
            size = 7;
          })
        ];
      }
      {
        name = "two";
        files = [
          (file "/models/two/.x.drv" { })
          (file "/models/two/y" {
            url = "https://example.com/y";
            private = true;
          })
        ];
      }
    ];
  };
  names = map (model: model.name);
  cases = {
    "all files" =
      map (model: model.path) lock.models == [
        "/models/a b~1.gguf"
        "/models/two/.x.drv"
        "/models/two/y"
      ];
    "store names" =
      names lock.models == [
        "a-b-1.gguf"
        "x.drv-"
        "y"
      ];
    "a model by its name" =
      names (lock.named "two") == [
        "x.drv-"
        "y"
      ];
    "an unknown name" = !(builtins.tryEval (lock.named "three")).success;
    "size and URL" =
      map (model: [
        model.size
        model.url
      ]) (lock.named "one") == [
        [
          7
          "https://example.com/a"
        ]
      ];
    "no URL, or one that needs a login" =
      map (model: model.url) (lock.named "two") == [
        null
        null
      ];
    "another version" =
      !(builtins.tryEval
        (import ./lock.nix {
          version = 2;
          models = [ ];
        }).models
      ).success;
  };
in
builtins.filter (name: !cases.${name}) (builtins.attrNames cases)
