"""Visitors of a web server: some threads that ask for a page again and again.

http_load.py PORT THREADS REQUESTS_A_SECOND_EACH
"""

import sys
import threading
import urllib.request

port, threads, rate = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
stop = threading.Event()


def visit():
    while not stop.wait(1 / rate):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
            page.read()


visitors = [threading.Thread(target=visit) for _ in range(threads)]
for visitor in visitors:
    visitor.start()
print("ready", flush=True)
sys.stdin.read()
stop.set()
for visitor in visitors:
    visitor.join()
