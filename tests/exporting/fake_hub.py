"""A server that plays the part of the Hugging Face hub which creating, committing to and reading a model repository
need: what is committed to it can be downloaded from it."""

import base64
import hashlib
import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "c" * 40


class Hub:
    """What was sent: ``repos`` maps a repository's name to its files, ``tokens`` has those of all writing requests.

    Attributes:
        refuse: path → status of requests that are refused.
        lfs: endings of files that are uploaded by Git LFS; ``verified`` has the digests of those that arrived.
    """

    def __init__(self):
        self.repos, self.tokens, self.refuse, self.url = {}, [], {}, ""
        self.lfs, self.verified, self._objects = (), [], {}

    def lfs_actions(self, wanted):
        """Where an object is to be uploaded, and whom to tell then."""
        href = f"{self.url}/lfs/{wanted['oid']}"
        return {
            "oid": wanted["oid"],
            "size": wanted["size"],
            "actions": {"upload": {"href": href}, "verify": {"href": f"{self.url}/lfs-verify"}},
        }

    def keep(self, digest, content):
        """Whether an object is what its digest says; it is kept then."""
        if hashlib.sha256(content).hexdigest() != digest:
            return False
        self._objects[digest] = content
        return True

    def file_of(self, line):
        """The content of a file in a commit, or that of the object that it points to."""
        if line["key"] == "lfsFile":
            content = self._objects[line["value"]["oid"]]
            assert len(content) == line["value"]["size"]
            return content
        return base64.b64decode(line["value"]["content"])


@contextmanager
def serving():
    """A hub on a free port of this machine, for as long as the block lasts."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            hub.tokens.append((self.headers.get("Authorization") or "").removeprefix("Bearer "))
            for part, status in hub.refuse.items():
                if part in path:
                    return self.answer({"error": "refused"}, status)
            if path == "/api/repos/create":
                wanted = json.loads(body)
                owner = wanted.get("organization") or "me"
                name = f"{owner}/{wanted['name']}"
                known = name in hub.repos
                hub.repos.setdefault(name, {})
                return self.answer({"url": f"{hub.url}/{name}", "name": name}, 409 if known else 200)
            if path == "/api/validate-yaml":
                return self.answer({"errors": [], "warnings": []})
            if found := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
                files = json.loads(body)["files"]
                modes = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(hub.lfs) else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in files
                ]
                return self.answer({"files": modes})
            if path.endswith(".git/info/lfs/objects/batch"):
                objects = [hub.lfs_actions(wanted) for wanted in json.loads(body)["objects"]]
                return self.answer({"transfer": "basic", "objects": objects})
            if path == "/lfs-verify":
                hub.verified.append(json.loads(body)["oid"])
                return self.answer({})
            if found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
                for line in map(json.loads, body.splitlines()):
                    if line["key"] in ("file", "lfsFile"):
                        hub.repos[found[1]][line["value"]["path"]] = hub.file_of(line)
                url = f"{hub.url}/{found[1]}/commit/{COMMIT}"
                return self.answer({"success": True, "commitOid": COMMIT, "commitUrl": url})
            return self.answer({"error": f"no {path}"}, 404)

        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer({}, 200 if hub.keep(self.path.rpartition("/")[2], body) else 400)

        def do_GET(self):
            path = self.path.partition("?")[0]
            file = re.fullmatch(r"/(.+?/.+?)/resolve/[^/]+/(.+)", path)
            about = re.fullmatch(r"/api/models/(.+?/[^/]+)(/revision/.+)?", path)
            if file and file[2] in hub.repos.get(file[1], {}):
                self.answer(hub.repos[file[1]][file[2]])
            elif file:
                self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            elif about and about[1] in hub.repos:
                files = [{"rfilename": name} for name in hub.repos[about[1]]]
                self.answer({"id": about[1], "sha": COMMIT, "siblings": files})
            else:
                self.answer({"error": f"no {path}"}, 404, {"X-Error-Code": "RepoNotFound"})

        def do_HEAD(self):
            self.do_GET()

        def answer(self, content, status=200, headers=()):
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            for name, value in dict(headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
