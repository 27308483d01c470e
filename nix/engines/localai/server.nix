# LocalAI's HTTP server with its web interface inside, and in the output `backends` the backends that are Go programs.
{
  lib,
  buildGoModule,
  buildNpmPackage,
  protobuf,
  protoc-gen-go,
  protoc-gen-go-grpc,
  source,
  pin,
  # Whether a model configuration that does not load stops the server. Upstream logs it and serves without it.
  strictConfig ? true,
}:

let
  version = lib.removePrefix "v" pin.tag;

  webInterface = buildNpmPackage {
    pname = "localai-ui";
    inherit version;
    src = source;
    sourceRoot = "source/core/http/react-ui";
    inherit (pin) npmDepsHash;
    installPhase = ''
      runHook preInstall
      cp -r dist $out
      runHook postInstall
    '';
  };
in
buildGoModule {
  pname = "localai";
  inherit version;
  src = source;
  outputs = [
    "out"
    "backends"
  ];

  # Not proxyVendor: what a Go proxy says about a module besides its source differs between proxies.
  inherit (pin) vendorHash;

  nativeBuildInputs = [
    protobuf
    protoc-gen-go
    protoc-gen-go-grpc
  ];

  postPatch = ''
    # Without the terminal agent `local-ai chat`, a client that nobody starts in an image: it follows unreleased commits
    # of cogito, and what the server takes of that library is in its last release.
    rm -r core/cli/chat core/cli/chat_*.go
    substituteInPlace core/cli/cli.go --replace-fail \
      'Chat            ChatCMD            `cmd:"" help:"Run the built-in terminal agent against a LocalAI server"`' ""
    go mod edit -droprequire=github.com/mudler/nib -require=github.com/mudler/cogito@v0.11.0
    cat >> go.sum <<EOF
    github.com/mudler/cogito v0.11.0 h1:of/o3/w402H9vm6mE+RktJVHJpUeOH5kSxSnwgR5Hd8=
    github.com/mudler/cogito v0.11.0/go.mod h1:6sfja3lcu2nWRzEc0wwqGNu/eCG3EWgij+8s7xyUeQ4=
    EOF
  ''
  + lib.optionalString strictConfig ''

    # A model configuration that does not load stops the server. Upstream logs it and serves without it.
    substituteInPlace core/application/startup.go --replace-fail \
      'xlog.Error("error loading config file", "error", err)' \
      'return nil, err'
    substituteInPlace core/config/model_config_loader.go \
      --replace-fail 'xlog.Warn("skipping invalid model config", "name", cc.Name, "error", err)' \
        'return fmt.Errorf("cannot load config file %q: the model %q is not valid: %w", file, cc.Name, err)' \
      --replace-fail 'if err := yaml.Unmarshal(f, &configs); err == nil && len(configs) > 0 {' \
        'listErr := yaml.Unmarshal(f, &configs)
      if listErr == nil && len(configs) > 0 {' \
      --replace-fail 'cannot unmarshal config file %q: %w", file, err)' \
        'cannot unmarshal config file %q: %w", file, errors.Join(listErr, err))'
  '';

  # Here and not later: vendoring needs the generated package too.
  preBuild = ''
    mkdir -p pkg/grpc/proto
    protoc -I backend --experimental_allow_proto3_optional \
      --go_out=pkg/grpc/proto --go_opt=paths=source_relative \
      --go-grpc_out=pkg/grpc/proto --go-grpc_opt=paths=source_relative \
      backend/backend.proto
  '';

  postConfigure = ''
    cp -r ${webInterface} core/http/react-ui/dist
  '';

  subPackages = [
    "cmd/local-ai"
    "backend/go/stablediffusion-ggml"
  ];
  env.CGO_ENABLED = 0;
  ldflags = [
    "-s"
    "-w"
    "-X github.com/mudler/LocalAI/internal.Version=${pin.tag}"
  ];

  # They download models.
  doCheck = false;

  postInstall = ''
    moveToOutput bin/stablediffusion-ggml $backends
  '';

  passthru = { inherit webInterface; };

  meta = {
    description = "OpenAI-compatible API server for local inference";
    homepage = "https://localai.io";
    license = lib.licenses.mit;
    mainProgram = "local-ai";
    platforms = lib.platforms.linux;
  };
}
