"""A service that greets: GET /NAME."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def greeting(path):
    return f"good day, {path.strip('/') or 'world'}\n"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = greeting(self.path).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()
