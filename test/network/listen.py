"""A small internet: listens on every address given, answers TCP with the caller's address and UDP 53 with a name's."""
import json, selectors, socket, sys

plan = json.loads(sys.argv[1])
poll = selectors.DefaultSelector()


def reply(query):
    """Every name is 8.8.4.4."""
    if 0 not in query[12:]:
        return query
    question = query[12:query.index(0, 12) + 5]
    if question[-4:-2] != b"\0\1":
        return query[:2] + b"\x81\x80\0\1\0\0\0\0\0\0" + question
    return query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x08\x08\4\4"


for kind, address, port in plan:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    if kind == "tcp":
        server.listen(16)
    poll.register(server, selectors.EVENT_READ, kind)
kept = []  # those who come to 8443 close themselves
print("up", flush=True)
while True:
    for key, _ in poll.select():
        if key.data == "tcp":
            caller, (host, *_) = key.fileobj.accept()
            caller.sendall(host.encode())
            if key.fileobj.getsockname()[1] == 8443:
                kept.append(caller)
            else:
                caller.close()
        else:
            query, sender = key.fileobj.recvfrom(2048)
            key.fileobj.sendto(reply(query) if key.fileobj.getsockname()[1] == 53 else sender[0].encode(), sender)
