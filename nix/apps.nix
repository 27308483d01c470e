# `nix run FLAKE#load`, `#push` and `#run`, for those who have nothing but Nix: what moves the image is docker, podman or
# skopeo as they are installed here; with nixpkgs, skopeo comes along.
{
  pkgs,
  name,
  tag,
  runtime,
  oci,
  stream,
}:

let
  app = name: description: script: {
    type = "app";
    meta = { inherit description; };
    program = "${pkgs.writeShellScript name "set -eu -o pipefail\n${script}"}";
  };

  # For a shell.
  quote = text: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] text}'";
  image = quote "${name}:${tag}";

  # The first of the named programs that works: docker may be installed and its daemon not run.
  choose = ''
    choose() {
      for program; do
        if "$program" info > /dev/null 2>&1; then return; fi
      done
      echo "error: no container engine: none of $* works here" >&2
      exit 1
    }
  '';
in
{
  load = app "load" "Load the image into docker or podman" ''
    ${choose}
    choose ''${1:-docker podman}
    ${stream} | "$program" load
  '';

  run = app "run" "Start the image with docker or podman" ''
    ${choose}
    choose docker podman
    id=$("$program" image inspect --format '{{.Id}}' ${image} 2> /dev/null || true)
    if [ "sha256:''${id#sha256:}" != "$(${stream} --id)" ]; then ${stream} | "$program" load; fi
    terminal=
    if [ -t 0 ]; then terminal=--tty; fi
    gpu=
    ${
      if runtime == "cuda" then
        ''if [ "$program" = docker ]; then gpu=--gpus=all; else gpu=--device=nvidia.com/gpu=all; fi''
      else
        ""
    }
    exec "$program" run --rm --interactive $terminal $gpu --read-only --tmpfs /tmp --cap-drop ALL \
      --publish "''${PORT:-8080}:8080" ${image} "$@"
  '';

  # The layers are pushed as they are, uncompressed: what the registry has is not sent again.
  push = app "push" "Push the image to a registry with skopeo" ''
    if [ $# = 0 ]; then
      echo "usage: nix run FLAKE#push -- REGISTRY/NAME:TAG [OPTION OF skopeo copy]..." >&2
      exit 2
    fi
    PATH=$PATH${if pkgs ? skopeo then ":${pkgs.skopeo}/bin" else ""}
    if ! command -v skopeo > /dev/null; then
      echo "error: \`skopeo\` is missing: install it (Debian package skopeo)" >&2
      exit 1
    fi
    to=$1
    shift
    exec skopeo --insecure-policy copy --preserve-digests "$@" oci:${oci}:${quote tag} "docker://''${to#docker://}"
  '';
}
