#!/usr/bin/env nix-shell
#! nix-shell -i bash -p bash curl git gnused jq nix
# Moves pins.json to LocalAI's newest release, or to the tag that is given, and to the commits that it is built from.
# All or nothing: pins.json is as it was where a step fails.
set -eu -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
nixpkgs=$(git rev-parse --show-toplevel)
before=$(cat pins.json)
trap 'if [ -n "$before" ]; then printf "%s\n" "$before" > pins.json; fi' EXIT

get() { curl --fail --silent --show-error --location "$1"; }

set_pin() {
  jq --arg part "$1" --arg key "$2" --arg value "$3" '.[$part][$key] = $value' pins.json > pins.json.new
  mv pins.json.new pins.json
}

# The hash that a build of one of the package's attributes finds, given a wrong one.
renew() {
  set_pin "$1" "$2" sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
  local said hash
  said=$(nix-build --no-out-link "$nixpkgs" --attr "local-ai.$3" 2>&1) || true
  hash=$(sed --quiet 's/^ *got: *//p' <<< "$said" | head --lines 1)
  if [ -z "$hash" ]; then
    tail --lines 20 <<< "$said" >&2
    exit 1
  fi
  set_pin "$1" "$2" "$hash"
}

# The commit that a backend's Makefile names.
commit() {
  get "https://raw.githubusercontent.com/mudler/LocalAI/$tag/backend/$1/Makefile" |
    sed --quiet --regexp-extended "s/^$2\??=([0-9a-f]{40})$/\1/p"
}

release=$(get "https://api.github.com/repos/mudler/LocalAI/releases/${1:+tags/}${1:-latest}")
tag=$(jq --raw-output .tag_name <<< "$release")
llama=$(commit cpp/llama-cpp LLAMA_VERSION)
stablediffusion=$(commit go/stablediffusion-ggml STABLEDIFFUSION_GGML_VERSION)
ggml=$(get "https://api.github.com/repos/leejet/stable-diffusion.cpp/contents/ggml?ref=$stablediffusion" | jq --raw-output .sha)

set_pin localai tag "$tag"
set_pin localai date "$(jq --raw-output '.published_at[:10]' <<< "$release")"
set_pin llama-cpp rev "$llama"
set_pin stablediffusion rev "$stablediffusion"
set_pin stablediffusion-ggml rev "$ggml"
renew localai hash source
renew localai npmDepsHash server.webInterface.npmDeps
renew localai vendorHash server.goModules
renew llama-cpp hash llama-cpp.llamaCpp
renew stablediffusion hash stablediffusion.stableDiffusionCpp
renew stablediffusion-ggml hash stablediffusion.ggml
before=
