# For NixOS: `services.aikit` serves a model of an aikit.lock with llama.cpp's server, confined, on a socket of this
# machine unless told otherwise. The unit has started when the server is well.
{
  config,
  lib,
  pkgs,
  utils,
  ...
}:

let
  cfg = config.services.aikit;
  model = import ./lib/fetch-model.nix {
    inherit pkgs;
    inherit (cfg) lock;
    name = cfg.model;
  };
  server = import ./engines/llama-server.nix {
    inherit pkgs;
    inherit (cfg) runtime;
  };
  socket = lib.hasSuffix ".sock" cfg.address;
  # Where the server listens on all addresses it is asked at this machine's own.
  asked =
    {
      "0.0.0.0" = "127.0.0.1";
      "::" = "::1";
    }
    .${cfg.address} or cfg.address;
in
{
  options.services.aikit = {
    enable = lib.mkEnableOption "a model of an aikit.lock, served by llama.cpp's server";
    lock = lib.mkOption {
      type = lib.types.either lib.types.path lib.types.attrs;
      description = "The aikit.lock that pins the model, or what it parses to: `aikit-nix lock` writes it.";
    };
    model = lib.mkOption {
      type = lib.types.str;
      description = "The model's name in the aikitfile. It is one file.";
    };
    runtime = lib.mkOption {
      type = lib.types.enum [
        "avx"
        "avx2"
        "avx512"
        "cpu"
        "cuda"
      ];
      default = if pkgs.stdenv.hostPlatform.isx86_64 then "avx2" else "cpu";
      defaultText = lib.literalMD "`avx2`, on aarch64 `cpu`";
      description = "What the server is compiled for; `cuda` wants `nixpkgs.config.cudaSupport`.";
    };
    package = lib.mkOption {
      type = lib.types.package;
      default = server.package;
      defaultText = lib.literalMD "llama.cpp's server, compiled for `runtime`";
      description = "The package with `bin/llama-server`.";
    };
    address = lib.mkOption {
      type = lib.types.str;
      default = "127.0.0.1";
      description = "The address to listen on; a path that ends in `.sock` is a Unix socket.";
    };
    port = lib.mkOption {
      type = lib.types.port;
      default = 8080;
      description = "The TCP port to listen on.";
    };
    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether others may reach the port.";
    };
    apiKeyFile = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      description = "A file with the keys, one a line, of which a request must have one; not from the Nix store.";
    };
    arguments = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [
        "--ctx-size"
        "8192"
      ];
      description = "More arguments of the server.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = builtins.length ((import ./lib/lock.nix cfg.lock).named cfg.model) == 1;
        message = "services.aikit.model: ${cfg.model} is of several files, and a model of one file can be served";
      }
      {
        assertion = !(socket && cfg.openFirewall);
        message = "services.aikit.openFirewall: the address ${cfg.address} is a Unix socket, which has no port";
      }
    ];

    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ cfg.port ];

    systemd.services.aikit = {
      description = "The model ${cfg.model}, served by llama.cpp";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      # Nothing is tried for ever: a model that does not fit into memory would be loaded again and again.
      startLimitIntervalSec = 3600;
      startLimitBurst = 3;
      serviceConfig = {
        ExecStart =
          utils.escapeSystemdExecArgs (
            [
              "${cfg.package}/bin/llama-server"
              "--offline"
              "--model"
              "${model}"
              "--alias"
              cfg.model
              "--host"
              cfg.address
              "--port"
              (toString cfg.port)
            ]
            ++ cfg.arguments
          )
          + lib.optionalString (cfg.apiKeyFile != null) " --api-key-file %d/keys";
        # Until the model is loaded /health answers 503.
        ExecStartPost = utils.escapeSystemdExecArgs (
          [
            (lib.getExe pkgs.curl)
            "--silent"
            "--show-error"
            "--fail"
            "--output"
            "/dev/null"
            "--retry"
            "600"
            "--retry-delay"
            "1"
            "--retry-all-errors"
          ]
          ++ (
            if socket then
              [
                "--unix-socket"
                cfg.address
                "http://localhost/health"
              ]
            else
              [
                "http://${if lib.hasInfix ":" asked then "[${asked}]" else asked}:${toString cfg.port}/health"
              ]
          )
        );
        TimeoutStartSec = 660;
        Restart = "on-failure";
        RestartSec = 5;
        LoadCredential = lib.optional (cfg.apiKeyFile != null) "keys:${cfg.apiKeyFile}";

        DynamicUser = true;
        RuntimeDirectory = "aikit";
        CapabilityBoundingSet = [ "" ];
        DevicePolicy = lib.mkIf (cfg.runtime != "cuda") "closed";
        PrivateDevices = cfg.runtime != "cuda";
        IPAddressDeny = lib.mkIf (cfg.address == "127.0.0.1") "any";
        IPAddressAllow = lib.mkIf (cfg.address == "127.0.0.1") "localhost";
        LockPersonality = true;
        NoNewPrivileges = true;
        PrivateTmp = true;
        PrivateUsers = true;
        ProcSubset = "all"; # /proc/cpuinfo, /proc/meminfo
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_UNIX"
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallFilter = [
          "@system-service"
          "~@privileged"
        ];
        # A socket is for whoever may enter its folder.
        UMask = if socket then "0000" else "0077";
      };
    };
  };
}
