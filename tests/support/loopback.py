"""A server on this machine that serves files as the world does: with cuts, errors, and ranges or none."""

import hashlib
import re
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from geco_ext.data.download import RemoteFile


class Loopback:
    """``files`` by path; ``faults[path]`` is a list of what goes wrong in the next requests of it, one each.

    A fault is a status code, ``("cut", n)`` for n bytes and then silence, ``("corrupt",)``, or ``("page",)`` and
    ``("short",)``: a web page, or another file of some bytes, with status 200.
    """

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/"
        self.files, self.faults, self.requests = {}, {}, []
        self.knows_ranges = True
        self.seconds_a_block = 0.0

    def ranges(self):
        """The Range header of each request so far, None where there was none."""
        return [asked for _, asked in self.requests]


BLOCK = 2**13


def handler(server):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.lstrip("/")
            asked = self.headers.get("Range")
            server.requests.append((path, asked))
            fault = server.faults[path].pop(0) if server.faults.get(path) else None
            if path not in server.files or isinstance(fault, int):
                self.send_error(404 if fault is None else fault)
                return
            content = server.files[path]
            if fault and fault[0] in ("page", "short"):
                page = b"<html>Too many downloads</html>"
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8" if fault[0] == "page" else "x/y")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)
                return
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.knows_ranges else 0
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            rest = content[start:]
            if fault and fault[0] == "corrupt":
                rest = bytes([rest[0] ^ 1]) + rest[1:]
            end = fault[1] if fault and fault[0] == "cut" else len(rest)
            with suppress(OSError):  # who asked was killed
                for first in range(0, end, BLOCK):
                    self.wfile.write(rest[first : min(first + BLOCK, end)])
                    time.sleep(server.seconds_a_block)
            self.close_connection = True

        def log_message(self, *_):
            pass

    return Handler


@contextmanager
def serving():
    http = ThreadingHTTPServer(("127.0.0.1", 0), None)
    server = Loopback(http.server_address[1])
    http.RequestHandlerClass = handler(server)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def published_at(server, files, algorithm="sha256"):
    """The files as the server publishes them."""
    server.files |= files
    digests = {name: f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}" for name, content in files.items()}
    return {name: RemoteFile(name, digests[name], (server.url + name,)) for name in files}
