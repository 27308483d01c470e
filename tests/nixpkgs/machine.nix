# A NixOS machine that serves a model of an aikit.lock: `nix build .#checks.x86_64-linux.machine` boots it. The server is a
# stand-in that compiles in no time; what is tried is the unit.
{ pkgs, module }:

let
  text = "no model";
  lock = {
    version = 1;
    models = [
      {
        name = "tiny";
        files = [
          {
            path = "/models/tiny.gguf";
            sha256 = builtins.hashString "sha256" text;
            url = "file://${pkgs.writeText "model" text}";
          }
        ];
      }
    ];
  };
  # Says what it was started with, and what it sees and may do.
  server = pkgs.writers.writePython3Bin "llama-server" { doCheck = false; } ''
    import http.server, json, os, socket, sys, time

    arguments = dict(zip(sys.argv, sys.argv[1:]))
    host, port = arguments["--host"], int(arguments["--port"])
    started = time.monotonic()

    def writes(path):
        try:
            open(path, "w").close()
        except OSError:
            return False
        return True

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            loading = self.path == "/health" and time.monotonic() < started + 3
            self.send_response(503 if loading else 200)
            self.end_headers()
            self.wfile.write(json.dumps({
                "model": open(arguments["--model"]).read(),
                "keys": open(arguments["--api-key-file"]).read() if "--api-key-file" in arguments else None,
                "root": os.getuid() == 0,
                "writes": [path for path in ("/etc/x", "/var/x", "/home/x") if writes(path)],
            }).encode())

        def address_string(self):
            return "socket"

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_UNIX if host.endswith(".sock") else socket.AF_INET

        def server_bind(self):
            self.socket.bind(host if host.endswith(".sock") else (host, port))

    Server((host, port), Handler).serve_forever()
  '';
  served = more: {
    imports = [ module ];
    services.aikit = {
      enable = true;
      inherit lock;
      model = "tiny";
      package = server;
    }
    // more;
  };
in
pkgs.testers.runNixOSTest {
  name = "aikit";
  nodes = {
    port = served { apiKeyFile = "${pkgs.writeText "keys" "secret"}"; };
    socket = served { address = "/run/aikit/llama.sock"; };
  };
  testScript = ''
    import json

    start_all()
    wanted = {"model": "${text}", "root": False, "writes": []}
    port.wait_for_unit("aikit.service")
    said = json.loads(port.succeed("curl --fail http://127.0.0.1:8080/health"))
    assert said == {**wanted, "keys": "secret"}, said
    port.fail("curl --fail --max-time 5 http://$(hostname -i | cut -d' ' -f1):8080/health")
    socket.wait_for_unit("aikit.service")
    said = json.loads(socket.succeed("curl --fail --unix-socket /run/aikit/llama.sock http://localhost/health"))
    assert said == {**wanted, "keys": None}, said
    socket.succeed("systemctl stop aikit.service")
    socket.fail("test -e /run/aikit/llama.sock")
  '';
}
