"""A service with one psycopg pool, used by some threads; healthy.

pooled.py PORT MIN MAX THREADS QUERY_SECONDS PAUSE_SECONDS [STAGGER_SECONDS]

With STAGGER_SECONDS the threads start one after the other: a ramp of traffic, or a pool that warms up. Statements are not
prepared: a pooler in between may run them in another server process.
"""

import sys
import threading

from psycopg_pool import ConnectionPool

port, least, most, threads = (int(word) for word in sys.argv[1:5])
query, pause = float(sys.argv[5]), float(sys.argv[6])
stagger = float(sys.argv[7]) if len(sys.argv) > 7 else 0.0
pool = ConnectionPool(
    f"host=127.0.0.1 port={port} user=postgres dbname=postgres",
    min_size=least,
    max_size=most,
    kwargs={"autocommit": True, "prepare_threshold": None},
    open=True,
)
pool.wait(30)
stop = threading.Event()


def work(number):
    if stop.wait(number * stagger):
        return
    while True:
        with pool.connection() as connection:
            connection.execute("SELECT pg_sleep(%s)", [query])
        if stop.wait(pause):
            return


workers = [threading.Thread(target=work, args=[number]) for number in range(threads)]
for worker in workers:
    worker.start()
print("ready", flush=True)
sys.stdin.read()
stop.set()
for worker in workers:
    worker.join()
pool.close()
