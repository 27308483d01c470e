# Programs out of Debian's own .debs, pinned by sha256 in lock.json: needs a Debian mirror and nothing else. Here is what
# goes into the image; ./builder.nix has what builds it.
#
# Returns { pkgs, engine }:
#   pkgs    the part of nixpkgs' interface that the image uses (see the end of this file)
#   engine  package, bin, name, env as every engine, and `root`: the image's files, engine included, at Debian's own places
#           and as Debian made them, byte for byte (NVIDIA's licence allows nothing else). So no path of the builder's
#           is in the image; scanners find the packages (/var/lib/dpkg/status.d, as in distroless images) and
#           /usr/lib/os-release; the licences are in /usr/share/doc/*/copyright. `layers` are its layers: a large package has
#           its own, which an update of another one leaves alone.
#           `package` is the same engine to be started from the Nix store: for checks.
#
# Two systems: the image is for `system`, and meanwhile programs of `buildSystem` run. Debian's files are unpacked, not
# compiled, so an image for arm64 needs no arm64 machine. A flake's pure evaluation does not know the machine that it is
# on: there it is x86-64 that builds. `nix build --impure` takes the machine's own programs. The image is the same, as
# nothing of them is in it.
{
  system,
  runtime,
  buildSystem ? builtins.currentSystem or "x86_64-linux",
}:

let
  lock = builtins.fromJSON (builtins.readFile ./lock.json);

  architecture = (builtins.fromJSON (builtins.readFile ../../targets.json)).architectures;
  pinned = lock.architectures.${architecture.${system}};

  builder = import ./builder.nix { inherit lock architecture buildSystem; };
  inherit (builder)
    debsOf
    shell
    runCommand
    unpack
    needed
    tools
    ;

  backends =
    (import ../../runtimes.nix).${runtime}.debian
      or (throw "the debian packages have no runtime ${runtime}: use nixpkgs");

  # What is loaded by name only, so that no library says that it is needed, and files that those read.
  loaded =
    {
      rocm = [ "libamd_comgr.so.*" ];
      vulkan = map (driver: "libvulkan_${driver}.so") drivers;
    }
    .${runtime} or [ ];
  read =
    {
      rocm = [
        "usr/lib/*/rocblas"
        "usr/share/libdrm"
      ];
      vulkan = map (driver: "usr/share/vulkan/icd.d/${driver}_icd.json") drivers ++ [
        "usr/share/libdrm"
      ];
    }
    .${runtime} or [ ];

  # Mesa's for the hardware that there is with this processor. lvp is Vulkan on the processor itself: ggml leaves it alone
  # unless GGML_VK_VISIBLE_DEVICES=0 asks for it, which tries the image out where there is no GPU.
  drivers =
    {
      amd64 = [
        "intel"
        "intel_hasvk"
        "lvp"
        "nouveau"
        "radeon"
        "virtio"
      ];
      arm64 = [
        "asahi"
        "broadcom"
        "freedreno"
        "lvp"
        "nouveau"
        "panfrost"
        "powervr_mesa"
        "radeon"
        "virtio"
      ];
    }
    .${architecture.${system}};

  accelerator =
    if
      builtins.elem runtime [
        "cuda"
        "rocm"
        "vulkan"
      ]
    then
      pinned.accelerators.${runtime}
        or (throw "the pinned Debian packages have no ${runtime} for ${system}")
    else
      [ ];

  root =
    runCommand "debian-${runtime}"
      {
        debs = debsOf pinned (pinned.engine ++ accelerator);
        nativeBuildInputs = [ tools ];
        inherit backends loaded read;
      }
      ''
        ${unpack}
        ${needed}
        unpack root $debs

        # Copies programs and libraries of `root` as they are, with what they are linked with.
        take() {
          local path to libraries
          for path; do
            to=$out/''${path#root/}
            if [ -e $to ]; then continue; fi
            mkdir -p $(dirname $to)
            cp -P $path $to
            if [ -L $path ]; then
              libraries=$(readlink -f $path)
              take root/''${libraries#$PWD/root/}
            else
              libraries=$(needed $path)
              take $libraries
            fi
          done
        }
        copy() {
          local path
          for path; do
            mkdir -p $out/$(dirname $path)
            cp -R root/$path $out/$path
          done
        }

        # The links from / to /usr, before anything is found through them.
        (cd root; echo bin lib* sbin) > links
        copy $(cat links)
        take root/usr/bin/llama-server
        take root/usr$(patchelf --print-interpreter root/usr/bin/llama-server)
        for backend in $backends; do
          found=$(find root/usr/lib/*/ggml/backends* -name "libggml-$backend.so")
          if [ -z "$found" ]; then echo "error: Debian has no ggml backend $backend for this processor" >&2; exit 1; fi
          take $found
        done
        for library in $loaded; do take root/usr/lib/*/$library; done
        for path in $read; do
          for found in root/$path; do copy ''${found#root/}; done
        done
        copy etc/os-release usr/lib/os-release etc/debian_version usr/share/common-licenses usr/share/ca-certificates
        mkdir -p $out/etc/ssl/certs
        find root/usr/share/ca-certificates -name '*.crt' | LC_ALL=C sort | while read -r certificate; do
          cat "$certificate"
          echo
        done > $out/etc/ssl/certs/ca-certificates.crt

        # The packages that something was taken from.
        status=$out/var/lib/dpkg/status.d
        mkdir -p $status
        for package in root/control/*; do
          name=$(basename $package)
          while read -r _ path; do
            if [ -e "$out/$path" ]; then
              cp $package/control $status/$name
              cp $package/md5sums $status/$name.md5sums
              mkdir -p $out/usr/share/doc/$name
              cp -L root/usr/share/doc/$name/copyright $out/usr/share/doc/$name
              break
            fi
          done < $package/md5sums
        done
      '';

  layers =
    runCommand "debian-${runtime}-layers"
      {
        nativeBuildInputs = [ tools ];
      }
      ''
        cp ${./package_layers.py} package_layers.py
        cp ${../../image/folder_layer.py} folder_layer.py
        python3 package_layers.py ${root} $out
      '';

  engine =
    runCommand "llama-server-${runtime}"
      {
        nativeBuildInputs = [ tools ];
        inherit root;
      }
      ''
        mkdir -p $out/bin $out/lib
        libraries=$(dirname $root/usr/lib/*/libc.so.6)
        cp $root/usr/bin/llama-server $out/bin
        # An rpath of the program is enough for all but libraries that Debian gave a path of their own.
        for library in $libraries/*.so* $libraries/llama/*.so*; do
          if [ -L $library ]; then continue; fi
          case $(patchelf --print-rpath $library) in
            /*) cp $library $out/lib/$(patchelf --print-soname $library) ;;
          esac
        done
        for file in $out/bin/* $out/lib/*; do
          chmod u+w $file
          patchelf --force-rpath --set-rpath $out/lib:$libraries $file
        done
        # Its own glibc starts it, also when it starts itself again (/proc/self/exe: one process a model).
        patchelf --set-interpreter $root$(patchelf --print-interpreter $out/bin/llama-server) $out/bin/llama-server
        # ggml looks for backends beside the running program.
        ln -s $libraries/ggml/backends*/* $out/bin
        ${if builder.system == system then "$out/bin/llama-server --version" else ""}
      '';

  pkgs = {
    inherit runCommand;
    inherit (builder) fetchurl writeText;
    python3 = tools;

    stdenv = {
      hostPlatform = { inherit system; };
      buildPlatform = {
        inherit (builder) system;
        canExecute = host: host.system == builder.system;
      };
    };

    writeShellScript =
      name: text:
      runCommand name
        {
          inherit text;
          passAsFile = [ "text" ];
        }
        ''
          echo "#!${shell}/bin/sh" | cat - $textPath > $out
          chmod +x $out
        '';
  };
in
{
  inherit pkgs;
  created = lock.date;

  engine = {
    package = engine;
    bin = "${engine}/bin/llama-server";
    name = "llama-server";
    inherit (pinned.packages."llama.cpp-tools") version;
    license = if runtime == "cuda" then "MIT AND LicenseRef-NVIDIA-CUDA-Toolkit" else "MIT";
    # What is in the image and not in Debian proper.
    labels = builtins.listToAttrs (
      builtins.concatMap
        (
          component:
          let
            names = builtins.filter (name: pinned.packages.${name}.component == component) (
              pinned.engine ++ accelerator
            );
          in
          if names == [ ] then
            [ ]
          else
            [
              {
                name = "aikit-nix.debian.${component}";
                value = builtins.concatStringsSep " " names;
              }
            ]
        )
        [
          "contrib"
          "non-free"
        ]
    );
    env = { };
    inherit root layers;
  };
}
