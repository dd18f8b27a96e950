/** What the host remembers of connections, in its table for everybody, and what stands in the way of filling it. */
import { readFileSync } from "node:fs"
import * as World from "./World.ts"

/** Entries of the host's table. */
export const remembered = () => Number(readFileSync("/proc/sys/net/netfilter/nf_conntrack_count", "utf8"))

/** How long each connection of a row's namespace still counts, in seconds. */
export const noted = (row: string): ReadonlyArray<number> => {
  const listed = World.sh(
    "nsenter",
    `--net=/run/netns/stoker-${row}`,
    "nft",
    "list",
    "set",
    "inet",
    "stoker",
    "connections"
  )
  return [...listed.matchAll(/expires (\S+?)[,\s]/g)].map(([, text = ""]) => {
    const part = (unit: string) => Number(new RegExp(`(\\d+)${unit}(?![a-z])`).exec(text)?.[1] ?? 0)
    return part("d") * 86_400 + part("h") * 3600 + part("m") * 60 + part("s")
  })
}

/** argv: address, how many. Says how many of its datagrams to as many ports were refused. */
export const flood = `import socket,sys
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
refused=0
for n in range(int(sys.argv[2])):
    try: s.sendto(b'x',(sys.argv[1],1000+n))
    except (PermissionError,ConnectionRefusedError): refused+=1
print(refused)`

/** argv: address. Holds a connection open until its standard input ends, then closes it properly. */
export const hold = `import socket,sys
s=socket.create_connection((sys.argv[1],8443),5)
s.recv(100)
print('up',flush=True)
sys.stdin.read()
s.close()`

/**
 * argv: card, our card's address, the other's, our address, target. As root: ends that nobody believes, for every port that we
 * may have a connection from, and packets out of the middle of connections that never began.
 */
export const forge = `import socket,struct,sys
card,mac,far,own,target=sys.argv[1:]
s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)
s.bind((card,0x800))
raw=lambda text: bytes.fromhex(text.replace(':',''))
def total(data):
    n=sum(struct.unpack('>%dH'%(len(data)//2),data))
    while n>>16: n=(n&0xffff)+(n>>16)
    return ~n&0xffff
def send(port,to,flags,sequence):
    a,b=socket.inet_aton(own),socket.inet_aton(target)
    tcp=struct.pack('>HHIIBBHHH',port,to,sequence,1,0x50,flags,100,0,0)
    tcp=tcp[:16]+struct.pack('>H',total(a+b+struct.pack('>HH',6,len(tcp))+tcp))+tcp[18:]
    ip=struct.pack('>BBHHHBBH',0x45,0,20+len(tcp),1,0,64,6,0)+a+b
    ip=ip[:10]+struct.pack('>H',total(ip))+ip[12:]
    s.send(raw(far)+raw(mac)+b'\\x08\\0'+ip+tcp)
low,high=map(int,open('/proc/sys/net/ipv4/ip_local_port_range').read().split())
for port in range(low,high+1):
    send(port,8443,4,0x12345678)
for port in range(2000): send(2000+port,443,16,7)`
