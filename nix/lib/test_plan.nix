# `nix-instantiate --eval --strict`: the names of what is not as it should be.
let
  lock = {
    version = 1;
    models = [
      {
        name = "one";
        source = "./one.gguf";
        files = [
          {
            path = "/models/one.gguf";
            sha256 = "00";
          }
        ];
      }
      {
        name = "One";
        source = "./one.gguf";
        files = [
          {
            path = "/models/one.gguf";
            sha256 = "00";
          }
          {
            path = "/models/two.gguf";
            sha256 = "01";
          }
        ];
      }
    ];
  };
  one = {
    name = "one";
    source = "./one.gguf";
  };
  aikitfile = {
    apiVersion = "v1alpha1";
    models = [ one ];
  };
  plan =
    changes:
    import ./plan.nix {
      inherit lock;
      aikitfile = aikitfile // changes;
    };
  named =
    name:
    (import ./plan.nix {
      inherit aikitfile lock name;
    }).image.name;
  templates =
    texts:
    plan {
      models = [
        {
          inherit (one) name source;
          promptTemplates = map (template: {
            name = "t";
            inherit template;
          }) texts;
        }
      ];
    };
  fails = value: !(builtins.tryEval (builtins.deepSeq value value)).success;
  cases = {
    "a runtime where none is named" = (plan { }).systems.x86_64-linux.default == "avx";
    "the models of the lock" = map (model: model.path) (plan { }).models == [ "/models/one.gguf" ];
    "shards that are listed one by one" =
      map (model: model.path)
        (plan {
          models = [
            one
            (one // { name = "One"; })
          ];
        }).models == [
        "/models/one.gguf"
        "/models/two.gguf"
      ];
    "a lock of another source" =
      fails
        (plan {
          models = [ (one // { source = "./two.gguf"; }) ];
        }).models;
    "the sha256 that the lock has" =
      (plan {
        models = [ (one // { sha256 = "00"; }) ];
      }).models == (plan { }).models;
    "a sha256 that is not the lock's" =
      fails
        (plan {
          models = [ (one // { sha256 = "01"; }) ];
        }).models;
    "keys without a value" =
      plan {
        backends = null;
        config = "";
        debug = null;
        runtime = "";
      } == plan { };
    "a runtime of one processor" =
      builtins.attrNames (plan { runtime = "avx2"; }).systems == [ "x86_64-linux" ];
    "a runtime of both" =
      builtins.attrNames (plan { runtime = "cuda"; }).systems == [
        "aarch64-linux"
        "x86_64-linux"
      ];
    "exllama for a processor" = fails (plan {
      backends = [ "exllama" ];
      runtime = "avx2";
    });
    "a runtime of Debian's packages" = fails (plan {
      runtime = "vulkan";
    });
    "a backend that is not there" = fails (plan {
      backends = [ "vllm" ];
    });
    "an image's name" = (plan { }).image.name == "one";
    "a name that is no image's" =
      fails
        (plan {
          models = [ (one // { name = "One"; }) ];
        }).image.name;
    "a name that is given" = named "team/my__image-2.1" == "team/my__image-2.1";
    "one that no registry takes" = fails (named "Llama");
    "a config" = (plan { config = "x"; }).env == { CONFIG_FILE = "/config.yaml"; };
    "a template that stands twice" =
      map (file: file.path)
        (templates [
          "x"
          "x"
        ]).files == [ "/models/t.tmpl" ];
    "two templates of one name" =
      fails
        (templates [
          "x"
          "y"
        ]).files;
    "YAML" = fails (
      import ./plan.nix {
        inherit lock;
        aikitfile = ./aikitfile.yaml;
      }
    );
    "a key that Nix does not read" = fails (plan {
      loadToMemory = [ ];
    });
    "another apiVersion" = fails (plan {
      apiVersion = "v2";
    });
  };
in
builtins.filter (name: !cases.${name}) (builtins.attrNames cases)
