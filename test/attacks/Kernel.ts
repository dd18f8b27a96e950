/** The kernel's own doors: system calls, /proc, devices, sockets, and the guest beside the job. */
import { assert } from "@effect/vitest"
import type { Attack, Seen } from "./Attack.ts"

const exited = ({ outcome }: Seen) => assert.deepStrictEqual(outcome, { _tag: "Exited", phase: "run", code: 0 })

/** Everything was tried (so many lines at least), and nothing worked but what is harmless. */
const refused = (atLeast: number, harmless: ReadonlyArray<string> = []) => (seen: Seen) => {
  exited(seen)
  assert.isAtLeast(seen.lines.length, atLeast)
  const did = seen.lines.filter((line) => line.endsWith("DID IT"))
  assert.deepStrictEqual(did.filter((line) => !harmless.includes(line.replace(": DID IT", ""))), [])
}

const kernel = (
  name: string,
  args: ReadonlyArray<string>,
  heldBy: string,
  expect: Attack["expect"]
): Attack => ({ name, heldBy, program: "kernel.c", args, needs: ["isolation"], expect })

/** Of the host's, but no secret: settings of its kernel. */
const readable: ReadonlyArray<string> = [
  "read /proc/sys/kernel/core_pattern",
  "read /proc/sys/kernel/modprobe",
  "read /proc/sys/net/ipv4/ip_forward",
  "read /proc/sys/fs/file-max",
  "read /proc/irq/0/smp_affinity",
  "read /proc/self/uid_map",
  "read /proc/self/setgroups",
  "read /proc/1/oom_score_adj",
  // Hidden by /dev/null, which takes everything.
  ...["keys", "timer_list", "interrupts", "sched_debug", "kcore", "latency_stats"].map((name) => `write /proc/${name}`)
]

export const attacks: ReadonlyArray<Attack> = [
  kernel("namespaces: unshare, clone, clone3, setns", ["namespaces"], "seccomp; no capability", refused(18)),
  kernel("mounts, pivot_root, chroot, file handles, swap", ["mounts"], "seccomp; no capability", refused(14)),
  kernel(
    "keys, bpf, perf, io_uring, userfaultfd, modules, kexec, clocks, realtime, core scheduling, ports",
    ["powers"],
    "seccomp; no capability; limits of realtime and nice are 0",
    (seen) => {
      refused(45)(seen)
      assert.strictEqual(seen.said("set a name"), "fine")
      for (const name of ["core scheduling", "core scheduling, upper half"]) {
        assert.strictEqual(seen.said(name), "EPERM")
      }
    }
  ),
  kernel(
    "devices, /proc, /sys and files of the host: read and write",
    ["devices"],
    "own mounts, read-only or masked; pid 1 is another user's and not dumpable",
    (seen) => {
      refused(
        80,
        [
          "read /etc/passwd",
          "read /proc/sys/kernel/hostname",
          // Its own label, where the kernel has a security module.
          "read /proc/self/attr/current"
        ].concat(readable)
      )(seen)
      const devices = seen.lines.filter((line) => line.startsWith("device ")).map((line) => line.slice(7))
      const standard = ["null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "stdout", "stderr", "ptmx"]
      assert.deepStrictEqual(
        devices.filter((name) => ![...standard, "shm", "console", "pts", "mqueue", "core"].includes(name)),
        []
      )
    }
  ),
  kernel(
    "signals, tracing, limits and forged frames for the guest; leaked descriptors",
    ["guest"],
    "the guest is another user's, closes everything before exec, and alone writes frames",
    (seen) => {
      refused(10)(seen)
      const count = Number(seen.said("forged"))
      assert.isAbove(count, 50)
      // Output like any other, byte for byte, and no frame.
      assert.strictEqual(seen.stderr.length, count)
      assert.include(seen.stdout, seen.stderr)
      assert.isFalse(seen.lines.some((line) => line.startsWith("leaked")))
      assert.strictEqual(seen.said("input"), "a file")
      for (const fd of [1, 2]) assert.strictEqual(seen.said(`output ${fd}`), "a pipe")
    }
  ),
  kernel(
    "overwriting the runtime or the guest through /proc/*/exe",
    ["overwrite"],
    "the runtime is a sealed copy in memory and outside; the guest is not the job's to open",
    refused(1)
  ),
  kernel(
    "network: foreign sockets, the world, the host's loopback and abstract sockets",
    ["network", "{port}", "{socket}"],
    "own network namespace with nothing but a loopback; seccomp lets unix, TCP and UDP sockets be made only",
    refused(25, ["own address"])
  ),
  {
    ...kernel("calls of a foreign architecture: int 0x80, x32", ["foreign"], "seccomp kills", (seen) => {
      exited(seen)
      for (const line of seen.lines) assert.match(line, /: killed$/)
    })
  },
  kernel(
    "raised limits; a core dump, and a core limit at which the host's handler would start",
    ["limits"],
    "hard limits; a core limit of 1 that the job cannot lower",
    (seen) => {
      refused(12)(seen)
      for (const name of ["core", "core limit after lowering it"]) {
        assert.strictEqual(seen.said(name === "core" ? "core limit" : name), "1")
      }
      for (const name of ["rtprio", "nice"]) assert.strictEqual(seen.said(`${name} limit`), "0")
      assert.strictEqual(seen.said("lock limit"), "65536")
      assert.strictEqual(seen.said("core dump"), "none")
    }
  )
]
