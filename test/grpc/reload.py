"""Follows a job until the server shows another certificate, and on."""
import socket
import ssl
import time

from client import channel, folder, port, tell
from stoker.v1 import stoker_pb2 as pb
from stoker.v1 import stoker_pb2_grpc as rpc


def shown():
    made = ssl.create_default_context(cafile=f"{folder}/certs/ca.crt")
    made.load_cert_chain(f"{folder}/certs/alice.crt", f"{folder}/certs/alice.key")
    made.set_alpn_protocols(["h2"])
    with socket.create_connection(("localhost", int(port)), 20) as raw:
        with made.wrap_socket(raw, server_hostname="localhost") as tls:
            return tls.getpeercert()["serialNumber"]


before = shown()
stub = rpc.JobServiceStub(channel())
stub.Start(pb.StartRequest(id="drip", command=pb.Command(argv=["drip", "20"])))
events = stub.Follow(pb.FollowRequest(id="drip"))
next(events)
patience = time.monotonic() + 30
while shown() == before and time.monotonic() < patience:
    time.sleep(0.05)
lines = [next(events).output.bytes.data for _ in range(5)]
events.cancel()
tell({"before": before, "after": shown(), "lines": all(line.startswith(b"drip") for line in lines)})
