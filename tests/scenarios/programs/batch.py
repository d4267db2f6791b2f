"""A job of cron's: connects some times, works, closes, ends.

batch.py PORT CONNECTIONS SECONDS
"""

import sys

import psycopg

port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
opened = [psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres") for _ in range(connections)]
for connection in opened:
    connection.execute("SELECT pg_sleep(%s)", [seconds / connections])
for connection in opened:
    connection.close()
