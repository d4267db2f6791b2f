"""A service that opens a connection to PostgreSQL for each request that comes in, and closes it after one statement.

`service.py DATABASE_PORT THREADS`: it connects once, listens on a free port of loopback with so many threads that accept,
and says `{"pid": P, "port": Q}`. A request is a TCP connection; the answer to it is a line. It ends with its stdin.
"""

import json
import os
import socket
import sys
import threading

import psycopg


def connect(port):
    return psycopg.connect(
        hostaddr="127.0.0.1", port=port, user="postgres", dbname="postgres", sslmode="disable", gssencmode="disable",
        connect_timeout=20, autocommit=True,
    )


def serve(listener, port):
    while True:
        request, _ = listener.accept()
        with request, connect(port) as connection:
            connection.execute("SELECT 1")
            request.sendall(b"done\n")


def main():
    port, threads = int(sys.argv[1]), int(sys.argv[2])
    kept = connect(port)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        for _ in range(threads):
            threading.Thread(target=serve, args=(listener, port), daemon=True).start()
        print(json.dumps({"pid": os.getpid(), "port": listener.getsockname()[1]}), flush=True)
        sys.stdin.read()
    os._exit(0 if not kept.closed else 1)


main()
