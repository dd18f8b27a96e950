"""What a job reaches: argv[1] is a list of [kind, address, port, seconds]; prints what came of each."""
import errno, json, socket, sys


def attempt(kind, address, port, seconds):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as s:
        s.settimeout(seconds)
        s.connect((address, port))
        if kind == "udp":
            s.send(b"hello")
        return "ok " + s.recv(100).decode()


found = []
for one in json.loads(sys.argv[1]):
    try:
        found.append(attempt(*one))
    except TimeoutError:
        found.append("silence")
    except OSError as error:
        found.append(errno.errorcode.get(error.errno, str(error)))
print(json.dumps(found))
