"""A Redis client with a pool that some threads use, and a subscription that waits; healthy.

redis_client.py PORT THREADS
"""

import sys
import threading

import redis

port, threads = int(sys.argv[1]), int(sys.argv[2])
client = redis.Redis(host="127.0.0.1", port=port, max_connections=threads + 1)
subscription = client.pubsub()
subscription.subscribe("news")
stop = threading.Event()


def work():
    while not stop.wait(0.01):
        client.incr("count")


workers = [threading.Thread(target=work) for _ in range(threads)]
for worker in workers:
    worker.start()
print("ready", flush=True)
sys.stdin.read()
stop.set()
for worker in workers:
    worker.join()
