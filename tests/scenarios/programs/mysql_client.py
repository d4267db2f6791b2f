"""Some connections to MariaDB that are all used, and one more that opens and closes; healthy.

mysql_client.py PORT CONNECTIONS
"""

import sys
import threading

import pymysql

port, connections = int(sys.argv[1]), int(sys.argv[2])
stop = threading.Event()


def work():
    connection = pymysql.connect(host="127.0.0.1", port=port, user="lab", password="", autocommit=True)
    with connection, connection.cursor() as cursor:
        while not stop.wait(0.05):
            cursor.execute("SELECT SLEEP(0.05)")


workers = [threading.Thread(target=work) for _ in range(connections)]
for worker in workers:
    worker.start()
print("ready", flush=True)
sys.stdin.read()
stop.set()
for worker in workers:
    worker.join()
