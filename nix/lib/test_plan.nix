# `nix-instantiate --eval --strict`: the names of what is not as it should be.
let
  lock = {
    version = 1;
    models = [
      {
        name = "one";
        files = [
          {
            path = "/models/one.gguf";
            sha256 = "00";
          }
        ];
      }
    ];
  };
  aikitfile = {
    apiVersion = "v1alpha1";
    models = [ { name = "one"; } ];
  };
  plan =
    changes:
    import ./plan.nix {
      inherit lock;
      aikitfile = aikitfile // changes;
      system = "x86_64-linux";
    };
  templates =
    texts:
    plan {
      models = [
        {
          name = "one";
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
    "an image's name" = (plan { }).image.name == "one";
    "a name that is no image's" =
      fails
        (plan {
          models = [ { name = "One"; } ];
        }).image.name;
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
        system = "x86_64-linux";
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
