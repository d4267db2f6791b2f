"""A gunicorn application whose workers each keep a small pool and use it: prefork, healthy.

Started as `gunicorn -w N wsgi:app`; DATABASE_PORT names the database.
"""

import os
import threading

from psycopg_pool import ConnectionPool

pool = ConnectionPool(
    f"host=127.0.0.1 port={os.environ['DATABASE_PORT']} user=postgres dbname=postgres",
    min_size=2,
    max_size=4,
    kwargs={"autocommit": True},
    open=True,
)


def work():
    pause = threading.Event()
    while True:
        with pool.connection() as connection:
            connection.execute("SELECT pg_sleep(0.05)")
        pause.wait(0.05)


for _ in range(2):
    threading.Thread(target=work, daemon=True).start()


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"fine\n"]
