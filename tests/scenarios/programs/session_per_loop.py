"""A script that opens a session in each turn of its loop and forgets to close it.

session_per_loop.py PORT SECONDS_A_TURN MOST [close]
"""

import sys
import threading

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

port, pause, most = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
closes = sys.argv[4:] == ["close"]
engine = create_engine(
    f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres", pool_size=5, max_overflow=-1
)
stop = threading.Event()
kept = []


def loop():
    turns = 0
    while not stop.is_set() and turns < most:
        turns += 1
        session = Session(engine)
        try:
            session.execute(text("SELECT 1"))
        except Exception as error:  # The database is full: the loop goes on, as such loops do.
            print("failed", str(error).splitlines()[0], file=sys.stderr, flush=True)
        if closes:
            session.close()
        else:
            kept.append(session)
        stop.wait(pause)


worker = threading.Thread(target=loop)
worker.start()
print("ready", flush=True)
sys.stdin.read()
stop.set()
worker.join()
