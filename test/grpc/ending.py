"""Follows a quiet job until the server ends."""
from client import channel, refused, tell
from stoker.v1 import stoker_pb2 as pb
from stoker.v1 import stoker_pb2_grpc as rpc

stub = rpc.JobServiceStub(channel())
stub.Start(pb.StartRequest(id="quiet", command=pb.Command(argv=["sleep"])))
tell(refused(lambda: stub.Follow(pb.FollowRequest(id="quiet"))))
