"""A launcher of a fleet: SQLAlchemy with its default pool of 5 + 10, whose modules each keep a session for good.

route_builder_launcher.py PORT SESSIONS
"""

import sys

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

port, sessions = int(sys.argv[1]), int(sys.argv[2])
engine = create_engine(
    f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres", pool_size=5, max_overflow=10
)
kept = []
for module in range(sessions):
    session = Session(engine)
    session.execute(text("SELECT 1"))
    kept.append(session)
print("ready", flush=True)
sys.stdin.read()
