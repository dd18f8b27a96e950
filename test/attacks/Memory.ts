/** Memory of every kind the kernel has to give, and what is counted for the whole host instead of for a job. */
import { assert } from "@effect/vitest"
import type { Attack, Seen } from "./Attack.ts"

const MiB = 1024 * 1024
const limitBytes = 96 * MiB
const limits = { memoryBytes: limitBytes }

const outOfMemory = ({ outcome }: Seen) =>
  assert.deepStrictEqual(outcome, { _tag: "OutOfMemory", phase: "run", limitBytes })
const exited = ({ outcome }: Seen) => assert.deepStrictEqual(outcome, { _tag: "Exited", phase: "run", code: 0 })
/** No more than its limit was in use, and the worker says so. */
const within = ({ usage }: Seen) => {
  // What the kernel must have (packets on their way) it takes also above a limit, and counts it.
  assert.isAtMost(usage.memoryPeakBytes ?? 0, limitBytes * 1.1)
  assert.isAbove(usage.memoryPeakBytes ?? 0, 0)
}
/** What it says to have held at once is no more than its limit: all of it was counted. */
const counted = (seen: Seen) => {
  within(seen)
  if (seen.outcome._tag === "OutOfMemory") return
  exited(seen)
  assert.match(seen.said("held") ?? "", /^\d+ MiB$/)
  assert.isAtMost(Number.parseInt(seen.said("held") ?? "", 10), limitBytes / MiB, "more was held than was counted")
}
/**
 * TCP lets each connection have a first piece whatever limits say, so that it goes on: on cgroup v2 that is counted, on v1
 * it is not. Without any limit it would be some 4 MiB each.
 */
const almostCounted = (seen: Seen) => {
  if (seen.outcome._tag === "OutOfMemory") return
  exited(seen)
  const connections = Number(seen.said("count"))
  assert.isAbove(connections, 0)
  assert.isAtMost(Number.parseInt(seen.said("held") ?? "", 10), (limitBytes + connections * 400 * 1024) / MiB)
}
const isRefused = (name: string, by: RegExp) => (seen: Seen) => {
  exited(seen)
  assert.match(seen.said(name) ?? "", by)
}

const memory = (name: string, args: ReadonlyArray<string>, heldBy: string, expect: Attack["expect"]): Attack => ({
  name,
  heldBy,
  program: "memory.c",
  args,
  needs: ["memory-limit"],
  limits,
  expect
})
const isolated = (attack: Attack): Attack => ({ ...attack, needs: [...attack.needs, "isolation"] })

export const attacks: ReadonlyArray<Attack> = [
  memory("anonymous memory, locked", ["anonymous"], "memory limit of the cgroup", (seen) => {
    outOfMemory(seen)
    within(seen)
  }),
  {
    ...memory(
      "files in all memory file systems",
      ["tmpfs", "/work", "/tmp", "/dev/shm"],
      "memory limit: tmpfs counts",
      (seen) => {
        outOfMemory(seen)
        within(seen)
      }
    ),
    needs: ["memory-limit", "disk-limit"]
  },
  memory("page cache of the host's /usr", ["cache"], "memory limit: a cgroup drops its own cache first", (seen) => {
    exited(seen)
    assert.strictEqual(seen.said("read"), "plenty")
    within(seen)
  }),
  memory("full pipes", ["pipes"], "memory limit; pages of pipes are counted for each user", counted),
  memory("unread messages of unix sockets", ["unix"], "memory limit: their buffers count", counted),
  memory("descriptors in flight", ["flight"], "descriptors in flight are counted for each user", (seen) => {
    within(seen)
    if (seen.outcome._tag === "OutOfMemory") return
    exited(seen)
    assert.strictEqual(seen.said("refused"), "ETOOMANYREFS")
  }),
  memory("memfds", ["memfd"], "memory limit", outOfMemory),
  memory("System V shared memory", ["sysv"], "memory limit, also where no process has it mapped", (seen) => {
    outOfMemory(seen)
    within(seen)
  }),
  isolated(memory("System V messages", ["messages"], "memory limit; the sandbox's own IPC namespace", counted)),
  isolated(memory("unread netlink messages", ["netlink"], "seccomp: no netlink sockets", (seen) => {
    counted(seen)
    assert.strictEqual(seen.said("refused"), "EAFNOSUPPORT")
  })),
  isolated(memory("unread answers of route netlink", ["route"], "seccomp: no netlink sockets", (seen) => {
    counted(seen)
    assert.strictEqual(seen.said("refused"), "EAFNOSUPPORT")
  })),
  memory("unread datagrams on the loopback", ["udp"], "memory limit; on cgroup v1 a quarter of it apart", counted),
  {
    ...memory(
      "unread streams on the loopback",
      ["tcp"],
      "memory limit; on cgroup v1 a quarter of it apart, and some 130 KiB of each connection above that are not held",
      almostCounted
    ),
    result: "partly held"
  },
  memory("filters on thousands of sockets", ["filters"], "memory limit", counted),
  isolated(
    memory(
      "all asynchronous I/O contexts of the host",
      ["aio"],
      "seccomp: none at all (ENOSYS)",
      isRefused("io_setup", /^ENOSYS$/)
    )
  ),
  isolated(memory("the host's huge pages", ["huge"], "seccomp", (seen) => {
    exited(seen)
    for (const kind of ["mmap", "memfd", "shm"]) {
      assert.strictEqual(seen.said(`${kind} huge`), "EPERM")
      assert.strictEqual(seen.said(`${kind} small`), "fine")
    }
  })),
  memory(
    "timers, locks and other small things",
    ["objects"],
    "memory limit: the kernel's small objects count too",
    (seen) => {
      within(seen)
      if (seen.outcome._tag !== "OutOfMemory") exited(seen)
    }
  ),
  memory(
    "a better score with the OOM killer",
    ["score"],
    "the kernel lets a job come down to its worker's score, not below",
    (seen) => {
      outOfMemory(seen)
      assert.match(seen.said("score -1000") ?? "", /^E(ACCES|PERM)$/)
      assert.match(seen.said("score -500") ?? "", /^E(ACCES|PERM)$/)
    }
  ),
  isolated(
    memory(
      "which pages of a host file are in memory",
      ["cachestat", "/usr/bin/env"],
      "seccomp: no cachestat",
      isRefused("cachestat", /^ENOSYS$/)
    )
  ),
  {
    name: "a compiler that fills the workspace before a small run",
    heldBy: "told as what it is: out of memory, by the program",
    program: "big.c",
    source: "big.c",
    needs: ["memory-limit", "disk-limit"],
    limits,
    expect: outOfMemory
  }
]
