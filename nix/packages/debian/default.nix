# Programs out of Debian's own .debs, pinned by sha256 in lock.json: needs a Debian mirror and nothing else.
#
# Returns { pkgs, engine }:
#   pkgs    the part of nixpkgs' interface that the image uses (see the end of this file)
#   engine  package, bin, name, env as every engine, and `root`: files for the image's root that say where the programs
#           come from. /var/lib/dpkg/status.d and /etc/os-release are what scanners read (as in distroless images), and
#           /usr/share/doc/*/copyright are the licences.
#
# A sandbox starts empty, so programs come in three steps:
#   seed     a small static program (seed/seed.c) that fetches a .deb from the first mirror that has it, and opens it;
#            carried as text, which Nix's own builtin unpacks; its C library's licence is ./seed/COPYRIGHT.musl
#   busybox  Debian's busybox-static: a shell, ar, tar, xz
#   tools    Debian's Python and patchelf, each started by the glibc beside it
# builtin:fetchurl could fetch the .debs, but neither reads the user's mirror from the environment nor falls back to
# the snapshot archive when the mirror has dropped a file.
{
  system,
  runtime,
  plan ? null,
}:

let
  lock = builtins.fromJSON (builtins.readFile ./lock.json);

  # Debian ships ggml's CPU backend once per processor type; which one is here decides the instruction set.
  backend =
    (import ../../runtimes.nix).${runtime}.debian
      or (throw "the debian packages have no runtime ${runtime}: use nixpkgs");

  # Made here or fetched from the mirror in a moment: no binary cache has it (asking one that cannot be reached takes
  # seconds), and no remote builder is worth sending the models to.
  local = {
    inherit system;
    allowSubstitutes = false;
    preferLocalBuild = true;
  };

  # One of Nix's own builders, which unpacks $src; what lies in it becomes $out/$channelName.
  unpacked =
    name: src:
    derivation (
      local
      // {
        inherit name src;
        system = "builtin";
        builder = "builtin:unpack-channel";
        channelName = name;
      }
    );

  seed = unpacked "seed" (
    builtins.path {
      name = "seed.txt";
      path = ./seed/seed.txt;
    }
  );

  # One .deb. Its store path follows from its name and hash alone, so `nix-store --add-fixed sha256 FILE` also gives it.
  deb =
    name:
    let
      package = lock.packages.${name};
    in
    derivation (
      local
      // {
        name = builtins.replaceStrings [ "~" ":" "%" ] [ "-" "-" "-" ] (baseNameOf package.filename);
        builder = "${seed}/seed";
        args = [ "fetch" ];
        outputHashMode = "flat";
        outputHashAlgo = "sha256";
        outputHash = package.sha256;
        inherit (package) sha256;
        package = "${name} ${package.version}";
        path = package.filename;
        # Where the files of a Debian archive stay for good.
        mirrors = "http://snapshot.debian.org/archive/debian/${lock.snapshot}";
        impureEnvVars = [
          "AIKIT_DEBIAN_MIRROR"
          "http_proxy"
        ];
        renew = "aikit-nix debian-lock, then aikit-nix gen --debian-lock debian-lock.json";
      }
    );

  debs = map deb;

  busybox = unpacked "busybox" (
    derivation (
      local
      // {
        name = "busybox.tar.xz";
        builder = "${seed}/seed";
        args = [ "member" ];
        archive = deb "busybox-static";
        member = "data.tar.xz";
      }
    )
  );

  shell = derivation (
    local
    // {
      name = "shell";
      builder = "${busybox}/busybox/bin/busybox";
      args = [
        "sh"
        "-ec"
        ''
          busybox=${busybox}/busybox/bin/busybox
          $busybox mkdir -p $out/bin
          $busybox --install -s $out/bin
        ''
      ];
    }
  );

  # nixpkgs' runCommand, with busybox for coreutils.
  runCommand =
    name: env: script:
    derivation (
      local
      // {
        inherit name;
        builder = "${shell}/bin/sh";
        args = [
          "-c"
          ''
            set -e -o pipefail
            PATH=${shell}/bin
            for input in $nativeBuildInputs; do PATH=$input/bin:$PATH; done
            export PATH HOME=/homeless-shelter
            umask 022
            ${script}
          ''
        ];
      }
      // env
    );

  writeText =
    name: text:
    runCommand name {
      inherit text;
      passAsFile = [ "text" ]; # an environment variable may hold 128 KiB at most
    } "cat $textPath > $out";

  # `unpack FOLDER DEB...`; FOLDER/control then has one file a package.
  unpack = ''
    unpack() {
      root=$1
      shift
      mkdir -p $root/control
      for deb; do
        ar p $deb data.tar.xz | xz -dc | tar -x -C $root
        ar p $deb control.tar.xz | xz -dc | tar -xO ./control > control
        mv control $root/control/$(sed -n 's/^Package: //p' control)
      done
    }
  '';

  # `take FILE FOLDER`: copies a library or program into FOLDER (of $out), and into $out/lib what it is linked with.
  take = ''
    take() {
      to=$out/$2/$(basename $1)
      if [ -e $to ]; then return; fi
      mkdir -p $out/$2
      cp -L $1 $to
      chmod u+w $to
      for needed in $(patchelf --print-needed $to); do
        found=$(find root/usr/lib -name $needed | sort | head -n 1)
        if [ -z "$found" ]; then echo "error: $1 needs $needed, which no pinned package has"; exit 1; fi
        take $found lib
      done
    }
  '';

  # `start PROGRAM NAME [OPTION]`: a script $out/bin/NAME that has the glibc in $out/lib start the PROGRAM. Build tools are
  # started this way because patchelf breaks a program that is not position-independent, as Debian's Python.
  start = ''
    start() {
      mkdir -p $out/bin
      cat > $out/bin/$2 <<EOF
    #!${shell}/bin/sh
    exec $(echo $out/lib/ld-linux*.so.*) --argv0 $out/bin/$2 --library-path $out/lib $1 $3 "\$@"
    EOF
      chmod +x $out/bin/$2
    }
  '';

  # Debian's Python and patchelf.
  tools = runCommand "tools" { debs = debs lock.tools; } ''
    ${unpack}
    ${take}
    ${start}
    unpack root $debs

    # patchelf cannot be asked yet what it is linked with itself.
    mkdir -p $out/lib
    cp root/usr/bin/patchelf $out/lib/patchelf
    cp -L root/usr/lib/*/ld-linux*.so.* root/usr/lib/*/libc.so.* root/usr/lib/*/libm.so.* \
      root/usr/lib/*/libgcc_s.so.* root/usr/lib/*/libstdc++.so.? $out/lib
    start $out/lib/patchelf patchelf
    PATH=$out/bin:$PATH

    python=$(readlink root/usr/bin/python3)
    cp -r root/usr/lib/$python $out/lib
    rm -rf $out/lib/$python/test $out/lib/$python/sitecustomize.py
    take root/usr/bin/$python lib/$python
    for module in $out/lib/$python/lib-dynload/*.so; do
      # A module whose libraries are not pinned cannot be imported.
      for needed in $(patchelf --print-needed $module); do
        found=$(find root/usr/lib -name $needed | sort | head -n 1)
        if [ -z "$found" ]; then
          rm $module
          break
        fi
        take $found lib
      done
    done
    # -B: root can write to the store, and Python would leave its caches there.
    start $out/lib/$python/$python python3 -B
    $out/bin/python3 -c 'import json, hashlib, tarfile, ssl'
  '';

  cacert = runCommand "ca-certificates" { debs = debs [ "ca-certificates" ]; } ''
    ${unpack}
    unpack root $debs
    mkdir -p $out/etc/ssl/certs
    find root/usr/share/ca-certificates -name '*.crt' | LC_ALL=C sort | while read -r certificate; do
      cat "$certificate"
      echo
    done > $out/etc/ssl/certs/ca-bundle.crt
  '';

  engine =
    runCommand "llama-server-${runtime}"
      {
        debs = debs lock.engine;
        nativeBuildInputs = [ tools ];
      }
      ''
        ${unpack}
        ${take}
        unpack root $debs
        take root/usr/bin/llama-server bin
        # ggml looks for backends beside the running program; with one of them there, that one is used.
        take $(echo root/usr/lib/*/ggml/backends*/libggml-cpu-${backend}.so) bin
        # Its own glibc starts it, also when it starts itself again (/proc/self/exe: one process a model).
        patchelf --set-interpreter $out/lib/$(basename $(patchelf --print-interpreter $out/bin/llama-server)) \
          $out/bin/llama-server
        # An rpath of the program is enough for all but libraries that Debian gave a path of their own.
        for file in $out/bin/llama-server $out/lib/*.so*; do
          if [ $file = $out/bin/llama-server ] || [ -n "$(patchelf --print-rpath $file)" ]; then
            patchelf --force-rpath --set-rpath $out/lib $file
          fi
        done
        $out/bin/llama-server --version
      '';

  provenance =
    runCommand "debian-provenance"
      {
        debs = debs (lock.engine ++ [ "ca-certificates" ]);
        inherit (lock) suite date;
      }
      ''
        ${unpack}
        unpack root $debs
        mkdir -p $out/var/lib/dpkg $out/etc
        cp -r root/control $out/var/lib/dpkg/status.d
        for copyright in root/usr/share/doc/*/copyright; do
          folder=$out/usr/share/doc/$(basename $(dirname $copyright))
          mkdir -p $folder
          cp -L $copyright $folder/copyright
        done
        cat > $out/etc/os-release <<EOF
        PRETTY_NAME="Debian GNU/Linux $suite, packages of $date"
        NAME="Debian GNU/Linux"
        ID=debian
        VERSION_CODENAME=$suite
        HOME_URL="https://www.debian.org/"
        EOF
      '';

  pkgs = {
    inherit cacert runCommand writeText;
    python3 = tools;

    stdenv.hostPlatform.system = system;

    # A file by its hash, through Nix's own downloader.
    fetchurl =
      {
        name,
        url,
        sha256,
      }:
      derivation {
        inherit name url;
        urls = [ url ];
        system = "builtin";
        builder = "builtin:fetchurl";
        outputHashMode = "flat";
        outputHashAlgo = "sha256";
        outputHash = sha256;
        unpack = false;
        executable = false;
        preferLocalBuild = true;
        impureEnvVars = [
          "http_proxy"
          "https_proxy"
          "ftp_proxy"
          "all_proxy"
          "no_proxy"
        ];
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

    dockerTools = import ./docker-tools.nix { inherit pkgs shell; };
  };
in
{
  inherit pkgs;

  engine = {
    package = engine;
    bin = "${engine}/bin/llama-server";
    name = "llama-server";
    license = "MIT";
    env = { };
    root = provenance;
  };
}
