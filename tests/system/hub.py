"""A hub for models on this machine that can misbehave: what `penstock model pull` talks to in tests.

Two servers: the hub itself, and the host that large files are redirected to. Each request is noted in
`requests`; the faults of `faults` are taken one by one by the requests for contents.
"""
import dataclasses
import hashlib
import http.server
import json
import pathlib
import re
import ssl
import threading
import time
import urllib.parse

ORG, NAME = "acme", "tiny"
LARGE = 20000       # from here on a file is kept apart, as git-lfs does


@dataclasses.dataclass
class Request:
    server: str
    path: str
    range: str
    token: str


def git_hash(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(pathlib.Path(folder).rglob("*")) if path.is_file()}


class Hub:
    """files: what the repository holds. A fault is a name, or a name with a value:

    "cut": half of what was asked for, then the connection is dropped; "short": half of it, said to be all;
    "long": a byte too many; "corrupt": a byte is another; "whole": Range is ignored; "elsewhere": another
    part than asked for; "stall": half of it, then nothing; a number: that status."""

    def __init__(self, files, tls=None, host="127.0.0.1"):
        self.files, self.faults, self.requests = dict(files), [], []
        self.token = None       # who does not send it is answered 401
        self.status = None      # of every answer for the listing
        self.message = None
        self.retry_after = None
        self.bytes_per_s = None
        self.listing = None     # replaces what is listed
        self.redirect = None    # where contents are, in place of the other server
        self.lock, self.host = threading.Lock(), host
        self.stop = threading.Event()
        self.hub = self.serve("hub", tls)
        self.cdn = self.serve("cdn", tls)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://{host.replace('127.0.0.1', 'localhost')}:{self.hub.server_port}"
        self.cdn_url = f"{scheme}://{host}:{self.cdn.server_port}"

    def serve(self, name, tls):
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                owner.note(name, self)
                (owner.answer_hub if name == "hub" else owner.answer_content)(self)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_):
                pass        # who was killed does not wait for his answer

        server = Server((self.host, 0), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            server.socket = context.wrap_socket(server.socket, server_side=True,
                                                do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def close(self):
        self.stop.set()
        for server in (self.hub, self.cdn):
            server.shutdown()
            server.server_close()

    def note(self, name, request):
        with self.lock:
            self.requests.append(Request(name, request.path, request.headers.get("Range", ""),
                                         request.headers.get("Authorization", "")))

    def contents(self):
        """The requests for contents, as (file's name or hash, range)."""
        return [r for r in self.requests if r.server == "cdn" or "/resolve/" in r.path]

    @property
    def commit(self):
        names = "".join(f"{path} {git_hash(content)}\n" for path, content in sorted(self.files.items()))
        return hashlib.sha1(names.encode()).hexdigest()

    def list(self):
        siblings = []
        for path, content in self.files.items():
            row = {"rfilename": path, "size": len(content), "blobId": git_hash(content)}
            if len(content) >= LARGE:
                row["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content),
                              "pointerSize": 134}
            siblings.append(row)
        return {"id": f"{ORG}/{NAME}", "sha": self.commit, "siblings": siblings}

    def reply(self, request, status, content=b"", **headers):
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def refuse(self, request, status):
        headers = {"X_Error_Message": self.message, "Retry_After": self.retry_after}
        self.reply(request, status, b"no", **{name: text for name, text in headers.items() if text})

    def answer_hub(self, request):
        path = urllib.parse.urlsplit(request.path).path
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return self.refuse(request, 401)
        found = re.fullmatch(f"/api/models/{ORG}/{NAME}/revision/([^/]+)", path)
        if found and self.status:
            return self.refuse(request, self.status)
        if found:
            if urllib.parse.unquote(found[1]) not in ("main", "refs/pr/1", self.commit):
                return self.refuse(request, 404)
            listing = self.list() if self.listing is None else self.listing
            text = listing if isinstance(listing, bytes) else json.dumps(listing).encode()
            return self.reply(request, 200, text)
        found = re.fullmatch(f"/{ORG}/{NAME}/resolve/([0-9a-f]+)/(.*)", path)
        content = self.files.get(urllib.parse.unquote(found[2])) if found else None
        if content is None or found[1] != self.commit:
            return self.refuse(request, 404)
        if len(content) < LARGE:
            return self.send(request, content, f'"{git_hash(content)}"')
        sha256 = hashlib.sha256(content).hexdigest()
        place = self.redirect or self.cdn_url
        return self.reply(request, 302, b"see there", Location=f"{place}/{sha256}?signed=yes",
                          X_Linked_Etag=f'"{sha256}"', X_Linked_Size=str(len(content)),
                          X_Repo_Commit=self.commit)

    def answer_content(self, request):
        wanted = urllib.parse.urlsplit(request.path).path[1:]
        for content in self.files.values():
            if hashlib.sha256(content).hexdigest() == wanted:
                return self.send(request, content, f'"{wanted}"')
        return self.refuse(request, 404)

    def send(self, request, content, etag):
        with self.lock:
            fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, int):
            return self.refuse(request, fault)
        total, first = len(content), 0
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if asked and fault != "whole":
            first = int(asked[1])
            if first >= total:
                return self.refuse(request, 416)
        body = content[first:]
        if fault == "corrupt":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if fault == "short":
            body = body[:len(body) // 2]
        if fault == "long":
            body += b"!"
        request.send_response(206 if asked and fault != "whole" else 200)
        if asked and fault != "whole":
            shown = first + 1 if fault == "elsewhere" else first
            request.send_header("Content-Range", f"bytes {shown}-{total - 1}/{total}")
        request.send_header("ETag", etag)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if fault in ("cut", "stall"):
            body = body[:len(body) // 2]
        self.write_slowly(request, body)
        if fault == "stall":
            self.stop.wait(60)
        if fault in ("cut", "stall"):
            request.close_connection = True
        return None

    def write_slowly(self, request, body):
        step = 1 << 14 if self.bytes_per_s else len(body)
        for at in range(0, len(body), max(step, 1)):
            request.wfile.write(body[at:at + step])
            request.wfile.flush()
            if self.bytes_per_s:
                time.sleep(step / self.bytes_per_s)
