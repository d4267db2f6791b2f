"""The repaired launcher: one process, one pool of 3 + 5, sessions returned after each use.

route_builder.py PORT [SHARD]

Which shard it builds makes no difference here.
"""

import sys
import threading

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

port = int(sys.argv[1])
engine = create_engine(
    f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres",
    pool_size=3,
    max_overflow=5,
    pool_recycle=900,
)
stop = threading.Event()


def work():
    while not stop.wait(0.05):
        with Session(engine) as session:
            session.execute(text("SELECT pg_sleep(0.05)"))


workers = [threading.Thread(target=work) for _ in range(3)]
for worker in workers:
    worker.start()
print("ready", flush=True)
sys.stdin.read()
stop.set()
for worker in workers:
    worker.join()
