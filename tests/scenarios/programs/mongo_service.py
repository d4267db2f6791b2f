"""A web service's handlers: each request asks MongoDB once.

mongo_service.py PORT per-request|global REQUESTS_A_SECOND MOST [close]

`per-request` makes a MongoClient for each request, and closes it only if told to; `global` has one for all.
"""

import sys
import threading

from pymongo import MongoClient

port, mode, rate, most = int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
closes = sys.argv[5:] == ["close"]
address = f"mongodb://127.0.0.1:{port}/?directConnection=true"
stop = threading.Event()
kept = []


def client():
    return MongoClient(address, maxPoolSize=50, maxIdleTimeMS=30000, waitQueueTimeoutMS=5000)


shared = client() if mode == "global" else None


def serve():
    requests = 0
    while not stop.is_set() and requests < most:
        requests += 1
        mine = shared or client()
        mine.app.things.find_one()
        if shared is None:
            if closes:
                mine.close()
            else:
                kept.append(mine)
        stop.wait(1 / rate)


worker = threading.Thread(target=serve)
worker.start()
print("ready", flush=True)
sys.stdin.read()
stop.set()
worker.join()
