/** What a machine may try whose root is an enemy's, and the test that tries it: rows of docs/attacks.md. */

/** Of Machine.test.ts. */
export const title = "gets no further than its own disk, console, memory and processor"

export const bounded = "each has a user of its own and a bound on memory and threads that its VMM counts for, too"

export interface MachineAttack {
  readonly name: string
  readonly heldBy: string
  readonly result?: "partly held" | "NOT held"
  /** A file below `test`, and a title in it. */
  readonly test: readonly [file: string, title: string]
}

const here = ["attacks/Machines.ts", title] as const
const reach = "network/machineReachSuite.ts"

export const attacks: ReadonlyArray<MachineAttack> = [
  {
    name: "writing to the root image that machines share: write, unlock, discard, zero",
    heldBy: "read-only device over a read-only mount",
    test: here
  },
  { name: "more scratch than there is", heldBy: "the disk's size, which is the file's", test: here },
  {
    name: "a flood on the serial console",
    heldBy: "a ring of 16 KiB in the VMM, read only when somebody asks",
    test: here
  },
  {
    name: "all memory, again and again",
    heldBy: "the machine's size",
    test: here
  },
  {
    name: "memory and threads of a VMM that was taken over; other machines' VMMs",
    heldBy: "a cgroup with the machine's size and a fixed share; a user for each machine",
    test: ["attacks/Machines.ts", bounded]
  },
  { name: "ports that no device is behind", heldBy: "the VMM ignores them; a machine has no PCI", test: here },
  {
    name: "what a VMM that was taken over has of the host",
    heldBy:
      "own user, no capability, no new privileges, seccomp, own mount, network and IPC namespace, no /proc; its files, tap and nothing else",
    test: here
  },
  { name: "living on at teardown, busy", heldBy: "KILL of the VMM, which is seen to be dead", test: here },
  {
    name: "writing to the memory that copies begin with",
    heldBy: "the file is opened read-only and mapped for each alone",
    test: [
      "microvm/Qemu.test.ts",
      "boots, is saved, and copies run at once, each another machine with memory of its own"
    ]
  },
  {
    name: "network `none`: anything",
    heldBy: "no interface but the tap, of which nothing is forwarded",
    test: [reach, "none: the host's own connections come in, and nothing goes anywhere"]
  },
  {
    name: "this side of the tap, and addresses that the host got later",
    heldBy: "nftables in the namespace, and on the host",
    test: [reach, "neither this side of its tap, nor an address the host got later"]
  },
  {
    name: "other machines, also where the class allows their subnet",
    heldBy: "nftables on the host",
    test: [reach, "two at once have the same address and never meet, even if their classes allow it; nobody reaches in"]
  },
  {
    name: "others' MAC and IP addresses, IPv6, ARP in the name of 200 neighbours",
    heldBy: "nftables at the tap's ingress: one card, one address",
    test: [reach, "nothing leaves from another address or card than its own, nor as IPv6"]
  },
  {
    name: "filling the host's table of connections; forged ends and middles of connections",
    heldBy: "nftables in the namespace: 4096 at a time, each for as long as the host remembers it",
    test: [reach, "its connections count for as long as the host remembers them, and no more than that fit"]
  }
]
