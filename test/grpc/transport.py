"""What the transport does with callers good and bad: certificates, deadlines, cancels, sizes, abandoned streams."""
import socket
import ssl
import sys
import time

import grpc
from client import by_path, channel, folder, material, port, refused, tell
from stoker.v1 import stoker_pb2 as pb
from stoker.v1 import stoker_pb2_grpc as rpc

told = {}
stub = rpc.JobServiceStub(channel("alice"))


def command(*argv, **more):
    return pb.StartRequest(command=pb.Command(argv=argv), **more)


def certificates():
    ca, key, crt = material("alice")
    told["no certificate"] = connect(grpc.ssl_channel_credentials(ca))
    for name in ("expired", "rogue", "server"):
        _, key, crt = material(name)
        told[name] = connect(grpc.ssl_channel_credentials(ca, key, crt))
    told["good"] = connect(grpc.ssl_channel_credentials(*material("alice")))
    told["plain"] = refused(
        lambda: rpc.JobServiceStub(grpc.insecure_channel(f"localhost:{port}")).Status(pb.StatusRequest(id="x"), timeout=3)
    )[0]
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        told[version.name] = handshake(version, ["h2"])
    told["http/1.1"] = handshake(ssl.TLSVersion.TLSv1_3, ["http/1.1"])
    told["no protocol"] = handshake(ssl.TLSVersion.TLSv1_3, [])


def connect(credentials):
    with grpc.secure_channel(f"localhost:{port}", credentials) as made:
        return refused(lambda: rpc.JobServiceStub(made).Status(pb.StatusRequest(id="x"), timeout=3))[0]


def context(protocols, version=None, name="alice"):
    made = ssl.create_default_context(cafile=f"{folder}/certs/ca.crt")
    made.load_cert_chain(f"{folder}/certs/{name}.crt", f"{folder}/certs/{name}.key")
    if version is not None:
        made.minimum_version = made.maximum_version = version
    if protocols:
        made.set_alpn_protocols(protocols)
    return made


def handshake(version, protocols):
    """Whether bytes come back over such a connection."""
    try:
        with socket.create_connection(("localhost", int(port)), 5) as raw:
            with context(protocols, version).wrap_socket(raw, server_hostname="localhost") as tls:
                tls.sendall(PREFACE)
                return len(tls.recv(1)) == 1
    except (ssl.SSLError, ConnectionError) as error:
        return type(error).__name__


def calls():
    started = time.monotonic()
    told["deadline"] = refused(lambda: stub.Start(command("queued", wait_seconds=60), timeout=0.5))[0]
    told["deadline took"] = time.monotonic() - started < 30
    stub.Start(command("sleep", id="quiet"))
    told["stream deadline"] = refused(lambda: stub.Follow(pb.FollowRequest(id="quiet"), timeout=0.5))[0]

    stub.Start(command("flood", id="flood", wait_seconds=5))
    flood = stub.Follow(pb.FollowRequest(id="flood"))
    taken = sum(len(event.output.bytes.data) for event, _ in zip(flood, range(100)))
    flood.cancel()
    told["cancelled"] = [taken > 1_000_000, refused(lambda: flood)[0]]
    # Nobody reads, nobody cancels: the connection goes.
    for _ in range(20):
        made = channel("alice", (("grpc.use_local_subchannel_pool", 1),))
        next(rpc.JobServiceStub(made).Follow(pb.FollowRequest(id="flood")))
        made.close()
    told["large"] = refused(lambda: stub.Start(command("echo", "x" * (5 << 20))))[0]
    told["still there"] = stub.Start(command("echo", "x" * (3 << 20))).job.owner
    raw = channel("alice")
    nothing = {"request_serializer": lambda b: b, "response_deserializer": lambda b: b}
    told["unknown method"] = refused(lambda: raw.unary_unary("/stoker.v1.JobService/Nope", **nothing)(b""))[0]
    told["unknown service"] = refused(lambda: raw.unary_unary("/no.Such/Method", **nothing)(b""))[0]
    told["garbage"] = refused(lambda: raw.unary_unary("/stoker.v1.JobService/Status", **nothing)(b"\xff\xff\xff"))[0]


def health():
    pb2 = by_path("grpc/health/v1/health")
    made = channel("alice")
    answers = {"request_serializer": pb2.HealthCheckRequest.SerializeToString, "response_deserializer": pb2.HealthCheckResponse.FromString}
    check = made.unary_unary("/grpc.health.v1.Health/Check", **answers)
    watch = made.unary_stream("/grpc.health.v1.Health/Watch", **answers)
    told["health"] = [
        check(pb2.HealthCheckRequest()).status,
        check(pb2.HealthCheckRequest(service="stoker.v1.JobService")).status,
        refused(lambda: check(pb2.HealthCheckRequest(service="nope")))[0],
        next(watch(pb2.HealthCheckRequest(), timeout=5)).status,
        next(watch(pb2.HealthCheckRequest(service="nope"), timeout=5)).status,
    ]


def reflection():
    for version in ("v1", "v1alpha"):
        pb2 = by_path(f"grpc/reflection/{version}/reflection")
        ask = channel("alice").stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=pb2.ServerReflectionResponse.FromString,
        )
        request = pb2.ServerReflectionRequest
        answers = list(
            ask(
                iter(
                    [
                        request(list_services=""),
                        request(file_containing_symbol="stoker.v1.JobService.Follow"),
                        request(file_by_filename="JobWorker/worker.proto"),
                        request(file_containing_symbol="stoker.v1.Nope"),
                        request(all_extension_numbers_of_type="stoker.v1.Job"),
                        request(),
                    ]
                ),
                timeout=10,
            )
        )
        told[f"services {version}"] = sorted(service.name for service in answers[0].list_services_response.service)
        # Python's own pool takes the files, so they are whole.
        from google.protobuf import descriptor_pb2, descriptor_pool

        pool = descriptor_pool.DescriptorPool()
        for answer in answers[1:3]:
            for file in reversed(answer.file_descriptor_response.file_descriptor_proto):
                pool.Add(descriptor_pb2.FileDescriptorProto.FromString(file))
        told[f"described {version}"] = [
            pool.FindServiceByName("stoker.v1.JobService").FindMethodByName("Follow").input_type.full_name,
            pool.FindMessageTypeByName("JobWorker.JobStatus").fields_by_name["exitCode"].number,
            answers[3].error_response.error_code,
            answers[4].all_extension_numbers_response.base_type_name,
            answers[5].error_response.error_code,
            answers[1].original_request.file_containing_symbol,
        ]


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def connected(name="alice"):
    raw = socket.create_connection(("localhost", int(port)), 30)
    tls = context(["h2"], name=name).wrap_socket(raw, server_hostname="localhost")
    tls.sendall(PREFACE)
    return tls


def is_closed(held):
    """Whether the other side ends the connection, before our patience ends."""
    try:
        held.settimeout(30)
        while held.recv(65536):
            pass
        return True
    except (ConnectionError, ssl.SSLError):
        return True
    except TimeoutError:
        return False


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def by_hand(path=b"/stoker.v1.JobService/Status", body=bytes([0, 0, 0, 0, 100]), **more):
    """What comes of a call whose frames are made here; without END_STREAM, so that it never goes on."""
    fields = {
        b":method": b"POST",
        b":scheme": b"https",
        b":path": path,
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
        **{name.replace("_", "-").encode(): value for name, value in more.items()},
    }
    # HPACK: each a literal with a new name, nothing kept, no Huffman.
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields.items()
    )
    tls = connected()
    tls.sendall(frame(1, 4, 1, block) + frame(0, 0, 1, body))
    reader = tls.makefile("rb")
    while True:
        head = reader.read(9)
        if len(head) < 9:
            return "closed"
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        reader.read(length)
        if kind == 4 and flags == 0:
            tls.sendall(frame(4, 1, 0, b""))
        if kind in (1, 3):
            return "answered"


def crowd():
    """Many connections that do nothing, shake hands for ever, or send half a request."""
    idle, silent = int(sys.argv[4]), int(sys.argv[5])
    held = [connected() for _ in range(idle)]
    mute = [socket.create_connection(("localhost", int(port)), 30) for _ in range(silent)]
    told["answered among them"] = connect(grpc.ssl_channel_credentials(*material("bob")))
    told["half"] = by_hand()
    told["mute ones are closed"] = all([is_closed(one) for one in mute])
    told["held"] = len(held)


def oddities():
    """Frames that no library sends. The server must stay; what it answers is its own matter."""
    odd = {
        "bytes in the path": by_hand(b"/stoker.v1.JobService/\xff\xfe%\x80"),
        "newline in the path": by_hand(b"/x\r\nset: 1"),
        "percent": by_hand(b"/%zz/%"),
        "no path": by_hand(b""),
        "timeout": by_hand(grpc_timeout=b"99999999S"),
        "bad timeout": by_hand(grpc_timeout=b"soon"),
        "encoding": by_hand(grpc_encoding=b"rot13", body=bytes([1, 0, 0, 0, 1, 0])),
        "length": by_hand(body=bytes([0, 255, 255, 255, 255])),
        "content type": by_hand(content_type=b"text/plain"),
        "binary header": by_hand(x_bin=b"\xff!"),
    }
    told["odd"] = odd
    told["after"] = connect(grpc.ssl_channel_credentials(*material("bob")))
    told["long id"] = refused(lambda: stub.Status(pb.StatusRequest(id="é" * 20_000), timeout=20))[0]
    told["surrogate"] = refused(
        lambda: stub.Start(
            pb.StartRequest(id="surrogate", call=pb.Call(function="noop", args_json='{"a": "\\ud800"}')), timeout=20
        )
    )[0]


def too_many():
    """More connections than one caller may have, and than there may be."""
    mine = [connected() for _ in range(4)]
    told["one more of mine"] = is_closed(connected())
    told["somebody else's"] = connect(grpc.ssl_channel_credentials(*material("bob")))
    theirs = [connected(name) for name in ("bob", "bob", "bob", "admin")]
    # The place that is left goes to whoever came last; who says nothing makes room for who does.
    mute = socket.create_connection(("localhost", int(port)), 30)
    told["in a silent one's place"] = connect(grpc.ssl_channel_credentials(*material("admin")))
    told["silent"] = is_closed(mute)
    told["held"] = len(mine) + len(theirs)


parts = {
    "certificates": certificates,
    "calls": calls,
    "health": health,
    "reflection": reflection,
    "crowd": crowd,
    "oddities": oddities,
    "too_many": too_many,
}
parts[sys.argv[3]]()
tell(told)
