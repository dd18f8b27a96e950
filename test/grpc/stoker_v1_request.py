"""All that a request to start a job may say, and what it may not."""
from client import channel, tell
from google.protobuf import timestamp_pb2
from stoker.v1 import stoker_pb2 as pb
from stoker.v1 import stoker_pb2_grpc as rpc

alice = rpc.JobServiceStub(channel("alice"))
# Whoever sends names of their own is not asked.
spoofed = alice.Start(
    pb.StartRequest(noop=pb.Noop()), metadata=(("owner", "bob"), ("x-owner", "bob"), ("caller", "admin"))
).job
full = pb.StartRequest(
    id="full",
    limits=pb.Limits(wall_ms=1000, memory_bytes=8 << 20, cpus=0.5, oom_group=False, output_policy=pb.OUTPUT_POLICY_KILL),
    terms=pb.Terms(
        priority=pb.PRIORITY_HIGH,
        not_before=timestamp_pb2.Timestamp(seconds=1, nanos=500_000_000),
        expires_at=timestamp_pb2.Timestamp(seconds=9_000_000_000),
        retry=pb.RetryPolicy(on=["Lost"], max_attempts=2, backoff_ms=10),
    ),
    wait_seconds=0.0001,
    webhook="https://example.com/",
    command=pb.Command(
        line="cat",
        files=[pb.InputFile(path="a", content=b"\x00\xff", executable=True)],
        stdin=b"in",
        env={"A": "b"},
        artefacts=["out"],
    ),
)
setattr(full, "class", "oci-small")
trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
alice.Start(full, metadata=(("traceparent", trace),))
alice.Start(pb.StartRequest(code=pb.Code(language="python", source="", cache=False, args=["x"])))
tell({"spoofed": spoofed.owner})
