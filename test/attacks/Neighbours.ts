/** Two jobs that look for each other, and hogs beside a neighbour who has work to do. */
import { assert } from "@effect/vitest"
import { slowly } from "../support/Slowness.ts"
import type { Attack, Seen } from "./Attack.ts"

const MiB = 1024 * 1024
const exited = ({ outcome }: Seen) => assert.deepStrictEqual(outcome, { _tag: "Exited", phase: "run", code: 0 })
const timedOut = ({ outcome }: Seen) => assert.strictEqual(outcome._tag, "TimedOut")
const hold = String(slowly(500))

/** One of the standard class's cores and no more, whatever it starts. */
const oneCore = (seen: Seen) => {
  timedOut(seen)
  const { cpuMicros = 0, wallMicros } = seen.usage
  assert.isAbove(cpuMicros, 0)
  // Half a core more: periods of quota at both ends, and the host's clock ticks.
  assert.isBelow(cpuMicros, wallMicros * 1.5 + 200_000)
}

const hog = (name: string, args: ReadonlyArray<string>, heldBy: string, expect: Attack["expect"]): Attack => ({
  name,
  program: "sharing.c",
  args,
  heldBy,
  needs: ["cpu-limit", "memory-limit"],
  limits: { wallMs: slowly(1200), memoryBytes: 160 * MiB },
  slowdown: 20,
  expect
})

export const attacks: ReadonlyArray<Attack> = [
  {
    name: "meeting another job: sockets, ports, System V, message queues, files, processes",
    heldBy: "namespaces of its own for network, IPC, processes and mounts",
    program: "sharing.c",
    args: ["seek", hold],
    beside: { program: "sharing.c", args: ["offer", hold] },
    needs: ["isolation"],
    expect: (seen) => {
      exited(seen)
      assert.strictEqual(seen.lines.length, 11)
      for (const line of seen.lines) assert.match(line, /: not found$/)
      const offered = seen.beside?.lines ?? []
      assert.strictEqual(offered.length, 10)
      for (const line of offered) assert.match(line, /: (there|ENOSYS)$/)
    }
  },
  {
    name: "meeting another job: a lock on a file of the shared /usr",
    heldBy: "both see the lock: a bit they can share, and a program of the host that locks files there would wait",
    result: "NOT held",
    program: "sharing.c",
    args: ["try-lock", "/usr/bin/env", hold],
    beside: { program: "sharing.c", args: ["lock", "/usr/bin/env", hold] },
    needs: ["isolation"],
    expect: (seen) => {
      exited(seen)
      // Should a driver keep it apart one day, this fails, and the line of docs/attacks.md is to be changed.
      if (seen.driver === "oci") assert.strictEqual(seen.said("shared lock"), "DID IT")
    }
  },
  hog("forty threads that spin", ["cpu"], "CPU quota of the cgroup", oneCore),
  hog("memory bandwidth", ["bandwidth"], "CPU quota; the memory bus itself is not divided", oneCore),
  hog("throwing the shared /usr out of memory", ["thrash"], "CPU quota; the neighbour reads it again", (seen) => {
    timedOut(seen)
  }),
  hog("a storm of forks", ["forks"], "CPU quota, pids limit", oneCore),
  hog("calls that keep the kernel busy", ["heavy"], "CPU quota", oneCore),
  {
    name: "CPU time in slices, by children that are gone before anybody looks",
    heldBy: "CPU time is the cgroup's, of the living and the dead",
    program: "sharing.c",
    args: ["slices"],
    needs: ["cpu-limit"],
    limits: { cpuMs: slowly(400) },
    expect: (seen) => {
      assert.deepStrictEqual(seen.outcome, { _tag: "TimedOut", phase: "run", limit: "cpu", limitMs: slowly(400) })
      assert.isAtLeast(seen.usage.cpuMicros ?? 0, slowly(400) * 990)
    }
  }
]
