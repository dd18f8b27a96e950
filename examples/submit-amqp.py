"""Submits a command as a job over AMQP and prints what comes of it; ends as the command did.

    AMQP_URL=amqp://guest:guest@127.0.0.1:5672/ python3 examples/submit-amqp.py 'echo hello'

The part that matters is `submit`. The class above it stands in for a client library (pika, amqp091-go and so on), so that
this runs without one; it knows just enough of AMQP 0-9-1 for that.
"""
import json
import os
import socket
import struct
import sys
import uuid
from urllib.parse import unquote, urlsplit


def short(text):
    return struct.pack("B", len(text.encode())) + text.encode()


class Broker:
    def __init__(self, address):
        url = urlsplit(address)
        self.socket = socket.create_connection((url.hostname, url.port or 5672))
        self.stream = self.socket.makefile("rb")
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self.wait(10, 10)
        login = f"\0{unquote(url.username or 'guest')}\0{unquote(url.password or 'guest')}".encode()
        answer = struct.pack(">I", 0) + short("PLAIN") + struct.pack(">I", len(login)) + login + short("en_US")
        self.method(0, 10, 11, answer)
        channels, size, _ = struct.unpack(">HIH", self.wait(10, 30))
        self.method(0, 10, 31, struct.pack(">HIH", channels, size, 0))
        self.method(0, 10, 40, short(unquote(url.path[1:]) or "/") + short("") + b"\0")
        self.wait(10, 41)
        self.method(1, 20, 10, short(""))
        self.wait(20, 11)

    def frame(self, kind, channel, payload):
        self.socket.sendall(struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce")

    def method(self, channel, klass, number, arguments):
        self.frame(1, channel, struct.pack(">HH", klass, number) + arguments)

    def read(self):
        kind, _, size = struct.unpack(">BHI", self.stream.read(7))
        payload = self.stream.read(size + 1)[:-1]
        return (kind, payload) if kind != 8 else self.read()  # 8: a heartbeat

    def wait(self, klass, number):
        """The arguments of the next method, which must be this one."""
        _, payload = self.read()
        found = struct.unpack(">HH", payload[:4])
        if found in ((10, 50), (20, 40), (60, 50)):  # closed, or returned: why
            at = 4 + 2
            sys.exit("the broker refused: " + payload[at + 1 : at + 1 + payload[at]].decode())
        if found != (klass, number):
            sys.exit(f"the broker said {found}, not {(klass, number)}")
        return payload[4:]

    def replies(self):
        """A queue of one's own, and what is to be read from it."""
        self.method(1, 50, 10, struct.pack(">H", 0) + short("") + b"\x04" + struct.pack(">I", 0))
        answer = self.wait(50, 11)
        queue = answer[1 : 1 + answer[0]].decode()
        self.method(1, 60, 20, struct.pack(">H", 0) + short(queue) + short("") + b"\x02" + struct.pack(">I", 0))
        self.wait(60, 21)
        return queue, self.bodies()

    def bodies(self):
        while True:
            self.wait(60, 60)
            left = struct.unpack(">Q", self.read()[1][4:12])[0]
            body = b""
            while left > len(body):
                body += self.read()[1]
            yield body

    def publish(self, queue, body, message_id, reply_to):
        """Mandatory, so that it comes back if there is no such queue; kept on disk."""
        self.method(1, 60, 40, struct.pack(">H", 0) + short("") + short(queue) + b"\x01")
        flags = 1 << 15 | 1 << 12 | 1 << 9 | 1 << 7
        properties = short("application/json") + b"\x02" + short(reply_to) + short(message_id)
        self.frame(2, 1, struct.pack(">HHQH", 60, 0, len(body), flags) + properties)
        self.frame(3, 1, body)


def submit(broker, command):
    """Sends the job to the queue of all workers, and gives each event of it until its end."""
    job = {"id": str(uuid.uuid4()), "function": "command", "args": {"command": command}, "limits": {"wallMs": 5000}}
    reply_to, bodies = broker.replies()
    broker.publish("stoker.jobs", json.dumps(job).encode(), message_id=job["id"], reply_to=reply_to)
    for body in bodies:
        event = json.loads(body)
        yield event
        if event["event"] == "ended":
            return


for event in submit(Broker(os.environ.get("AMQP_URL", "amqp://127.0.0.1/")), sys.argv[1]):
    print(event["event"], flush=True)
outcome = event["outcome"]
for output in event["output"]:
    for line in output["content"].splitlines():
        print(f"{output['stream']}: {line}")
print(outcome)
sys.exit(outcome.get("code", 1))
