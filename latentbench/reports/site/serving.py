"""Shows the site in a browser on this machine."""

import webbrowser
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def serve(folder: Path) -> None:
    """Serve a folder to this machine alone, and open it, until interrupted.

    Args:
        folder: the site.
    """
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        webbrowser.open(address)
        server.serve_forever()
