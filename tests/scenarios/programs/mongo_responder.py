"""Answers the MongoDB wire protocol (OP_MSG) enough for the real driver to connect, ping and find: not a database.

mongo_responder.py PORT
"""

import socketserver
import struct
import sys

import bson
from bson.int64 import Int64

OP_MSG = 2013
OP_REPLY = 1
OP_QUERY = 2004
HELLO = {
    "helloOk": True,
    "isWritablePrimary": True,
    "ismaster": True,
    "maxBsonObjectSize": 16777216,
    "maxMessageSizeBytes": 48000000,
    "maxWriteBatchSize": 100000,
    "minWireVersion": 0,
    "maxWireVersion": 21,
    "readOnly": False,
    "ok": 1.0,
}


class Connection(socketserver.BaseRequestHandler):
    def whole(self, size):
        data = b""
        while len(data) < size:
            more = self.request.recv(size - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data

    def handle(self):
        try:
            while True:
                length, request, _, opcode = struct.unpack("<iiii", self.whole(16))
                body = self.whole(length - 16)
                if opcode == OP_QUERY:
                    self.answer_query(request)
                elif opcode == OP_MSG:
                    self.answer(request, bson.decode(body[5:]))
        except (ConnectionError, OSError):
            pass

    def answer_query(self, request):
        document = bson.encode(HELLO)
        head = struct.pack("<iqii", 8, 0, 0, 1)
        header = struct.pack("<iiii", 16 + len(head) + len(document), 1, request, OP_REPLY)
        self.request.sendall(header + head + document)

    def answer(self, request, command):
        name = next(iter(command))
        if name in ("hello", "ismaster", "isMaster"):
            reply = HELLO
        elif name == "find":
            reply = {"cursor": {"firstBatch": [{"_id": 1}], "id": Int64(0), "ns": "app.things"}, "ok": 1.0}
        else:
            reply = {"ok": 1.0}
        document = bson.encode(reply)
        header = struct.pack("<iiii", 21 + len(document), 1, request, OP_MSG)
        self.request.sendall(header + struct.pack("<iB", 0, 0) + document)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512


with Server(("127.0.0.1", int(sys.argv[1])), Connection) as server:
    print("ready", flush=True)
    server.serve_forever()
