"""Stands in for a machine's monitor: carries frames, whole and unread, between a tap here and an interface of another network
namespace. usage: tapguest.py TAP NETNS_PATH INTERFACE; says `up` when it carries, ends when it is killed."""
import ctypes, fcntl, os, select, socket, struct, sys

tap, namespace, interface = sys.argv[1:]
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x2, 0x1000, 0x4000
SOL_PACKET, PACKET_VNET_HDR, PACKET_OUTGOING, ETH_P_ALL, CLONE_NEWNET = 263, 15, 4, 3, 0x40000000

# As a monitor does: its card adds up no checksums, the header before each frame says what is still to be done.
device = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
libc = ctypes.CDLL(None, use_errno=True)
if libc.setns(os.open(namespace, os.O_RDONLY), CLONE_NEWNET) != 0:
    raise OSError(ctypes.get_errno(), "setns")
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
link.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
link.bind((interface, ETH_P_ALL))
print("up", flush=True)
while True:
    for ready in select.select([device, link], [], [])[0]:
        try:
            if ready is link:
                frame, (_, _, kind, *_) = link.recvfrom(70_000)
                if kind != PACKET_OUTGOING:
                    os.write(device, frame)
            else:
                link.send(os.read(device, 70_000))
        except OSError as error:
            if ready is device:
                sys.exit(0)  # the tap is gone
            print(error, file=sys.stderr, flush=True)
