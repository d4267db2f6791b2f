"""A database client that does what it is told, one command a line, one JSON answer a line.

The live suite drives it over stdin and stdout; every answer comes after the deed, so the suite never guesses when
something has happened. Connections are numbered by age: commands that take a count act on the oldest ones.

  open N [HOST]   open N connections          -> ports
  query N         run a statement on N        -> done
  close N         close N the polite way      -> ports
  drop N          forget N without closing    -> ports
  abort N         close N with a reset        -> ports
  hangup N        close N without a goodbye: the kernel's FIN and nothing else -> ports
  send N [BYTES]  send a statement as long as that on each of N, and do not wait -> ports
  send-last BYTES send one as long as that on the youngest, as far as it fits -> nothing
  sleep N S       send a statement that takes S seconds on each of N, and do not wait -> ports
  receive N       wait for the answers to those sent -> done
  reap N          wait until the database has hung up on N, closing each at once -> ports
  dup N           move N to other descriptors -> done
  listen PATH     wait for descriptors at a unix socket -> done
  give N PATH     pass N to whoever listens there, and forget them -> ports
  take N          receive N descriptors       -> ports
  thread N [HOST] a thread with descriptors of its own opens N and holds them -> ports
  leaderless      end the first thread, another one goes on and holds -> nothing
  fork            a child that holds what it inherited and does nothing else     -> pid
  exec            become another program, descriptors closed by close-on-exec    -> pid
  exec-inherit    become another program that inherits the connections           -> pid
  ports           what is open now            -> ports
  exit            end without closing anything

A process that only holds ends when the suite's end of its stdin is gone, so nothing outlives the suite.
"""

import ctypes
import gc
import json
import os
import select
import socket
import struct
import sys
import threading

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
CLONE_FILES = 0x400
SYS_EXIT = {"x86_64": 60, "aarch64": 93}


def answer(**fields):
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def hold():
    """Wait for the other end of stdin to go, without reading: a parent may still be reading it."""
    poll = select.poll()
    poll.register(0, 0)
    poll.poll()
    os._exit(0)


def local_port(connection):
    with socket.socket(fileno=os.dup(connection.fileno())) as peer:
        return peer.getsockname()[1]


class Client:
    def __init__(self, port):
        import psycopg

        self.connect = psycopg.connect
        self.port = port
        self.open = []
        self.hollow = []
        self.held = []

    def take(self, count):
        taken, self.open = self.open[: int(count)], self.open[int(count):]
        if len(taken) != int(count):
            raise RuntimeError(f"asked for {count} connections, had {len(taken)}")
        return taken

    def connections(self, count, host):
        return [
            self.connect(
                hostaddr=host, port=self.port, user="postgres", dbname="postgres", sslmode="disable",
                gssencmode="disable", connect_timeout=20, autocommit=True,
            )
            for _ in range(int(count))
        ]

    def do_open(self, count, host="127.0.0.1"):
        new = self.connections(count, host)
        self.open += new
        return {"ports": [local_port(each) for each in new]}

    def do_dup(self, count):
        null = os.open("/dev/null", os.O_RDWR)
        for connection in self.take(count):
            self.held.append(os.dup(connection.fileno()))
            # The driver keeps a descriptor, of something else.
            os.dup2(null, connection.fileno())
            self.hollow.append(connection)
        os.close(null)
        return {}

    def do_listen(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        return {}

    def do_give(self, count, path):
        taken = self.take(count)
        ports = [local_port(each) for each in taken]
        with socket.socket(socket.AF_UNIX) as way:
            way.connect(path)
            socket.send_fds(way, [b"x"], [each.fileno() for each in taken])
        # Still held by this process until it ends: the driver would say goodbye on closing.
        self.hollow += taken
        return {"ports": ports}

    def do_take(self, count):
        way, _ = self.listener.accept()
        with way:
            _, received, _, _ = socket.recv_fds(way, 1, int(count))
        self.held += received
        ports = []
        for fd in received:
            with socket.socket(fileno=os.dup(fd)) as same:
                ports.append(same.getsockname()[1])
        return {"ports": ports}

    def do_thread(self, count, host="127.0.0.1"):
        opened = threading.Event()
        ports = []

        def run():
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_FILES) == 0:
                connections = self.connections(count, host)
                ports.extend(local_port(each) for each in connections)
                opened.set()
                threading.Event().wait()
            opened.set()

        threading.Thread(target=run, daemon=True).start()
        opened.wait()
        if len(ports) != int(count):
            raise RuntimeError("the thread has no descriptors of its own")
        return {"ports": ports}

    def do_leaderless(self):
        threading.Thread(target=hold).start()
        answer(ok=True)
        ctypes.CDLL(None).syscall(SYS_EXIT[os.uname().machine], 0)

    def do_query(self, count):
        for connection in self.open[: int(count)]:
            connection.execute("SELECT repeat('x', 1000)").fetchall()
        return {}

    def do_close(self, count):
        taken = self.take(count)
        ports = [local_port(each) for each in taken]
        for connection in taken:
            connection.close()
        return {"ports": ports}

    def do_drop(self, count):
        taken = self.take(count)
        ports = [local_port(each) for each in taken]
        del taken
        gc.collect()
        return {"ports": ports}

    def do_send(self, count, length="20"):
        filler = b"x" * int(length)
        for connection in self.open[: int(count)]:
            connection.pgconn.send_query(b"SELECT length('" + filler + b"')")
            connection.pgconn.flush()
        return {"ports": [local_port(each) for each in self.open[: int(count)]]}

    def do_sleep(self, count, seconds):
        for connection in self.open[: int(count)]:
            connection.pgconn.send_query(f"SELECT pg_sleep({float(seconds)})".encode())
            connection.pgconn.flush()
        return {"ports": [local_port(each) for each in self.open[: int(count)]]}

    def do_send_last(self, length):
        last = self.open[-1].pgconn
        last.send_query(b"SELECT length('" + b"x" * int(length) + b"')")
        last.flush()
        return {}

    def do_receive(self, count):
        for connection in self.open[: int(count)]:
            wire = connection.pgconn
            while True:
                # What did not fit when it was sent goes out now.
                while wire.flush():
                    select.select([wire.socket], [wire.socket], [])
                    wire.consume_input()
                while wire.is_busy():
                    select.select([wire.socket], [], [])
                    wire.consume_input()
                if wire.get_result() is None:
                    break
        return {}

    def do_abort(self, count):
        return self.take_away(count, RESET_ON_CLOSE)

    def do_hangup(self, count):
        return self.take_away(count, None)

    def take_away(self, count, linger):
        ports = []
        null = os.open("/dev/null", os.O_RDWR)
        for connection in self.take(count):
            ports.append(local_port(connection))
            if linger:
                with socket.socket(fileno=os.dup(connection.fileno())) as same:
                    same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            # The driver would say goodbye first; taking the descriptor from under it closes the socket mid-life.
            os.dup2(null, connection.fileno())
            connection.close()
        os.close(null)
        return {"ports": ports}

    def do_reap(self, count):
        waiting = {each.fileno(): each for each in self.take(count)}
        poll = select.poll()
        for fd in waiting:
            poll.register(fd, select.POLLRDHUP)
        ports = []
        while waiting:
            for fd, _ in poll.poll():
                poll.unregister(fd)
                connection = waiting.pop(fd)
                ports.append(local_port(connection))
                connection.close()
        return {"ports": ports}

    def do_ports(self):
        return {"ports": [local_port(each) for each in self.open]}

    def do_fork(self):
        pid = os.fork()
        if pid == 0:
            hold()
        return {"pid": pid}

    def do_exec(self):
        os.execv(sys.executable, [sys.executable, __file__, "hold"])

    def do_exec_inherit(self):
        for connection in self.open:
            os.set_inheritable(connection.fileno(), True)
        self.do_exec()

    def do_exit(self):
        answer(ok=True)
        os._exit(0)


def main():
    if sys.argv[1] == "hold":
        answer(ok=True, pid=os.getpid())
        hold()
    client = Client(int(sys.argv[1]))
    answer(ok=True, pid=os.getpid())
    for line in sys.stdin:
        verb, *arguments = line.split()
        try:
            result = getattr(client, "do_" + verb.replace("-", "_"))(*arguments)
        except Exception as error:  # the suite shows it and fails
            answer(ok=False, error=f"{type(error).__name__}: {error}")
        else:
            answer(ok=True, **result)
    # The suite is gone or done: leave the connections to the kernel, as a crash would.
    os._exit(0)


main()
