"""Requests as PHP serves them: a worker connects, asks once and closes, for each.

churn.py PORT REQUESTS_A_SECOND
"""

import sys
import threading

import psycopg

port, rate = int(sys.argv[1]), float(sys.argv[2])
stop = threading.Event()


def serve():
    while not stop.wait(1 / rate):
        with psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres") as connection:
            connection.execute("SELECT 1")


worker = threading.Thread(target=serve)
worker.start()
print("ready", flush=True)
sys.stdin.read()
stop.set()
worker.join()
