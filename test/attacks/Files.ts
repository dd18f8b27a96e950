/** Files that are too many, too large, too deep or not what they seem; output without end; artefacts. */
import { assert } from "@effect/vitest"
import type { Attack, Seen } from "./Attack.ts"

const MiB = 1024 * 1024
const exited = ({ outcome }: Seen) => assert.deepStrictEqual(outcome, { _tag: "Exited", phase: "run", code: 0 })
const nothingDone = ({ lines }: Seen) => assert.deepStrictEqual(lines.filter((line) => line.endsWith("DID IT")), [])
const timedOut = ({ outcome }: Seen) => assert.strictEqual(outcome._tag, "TimedOut")
const exceeded = (limitBytes: number) => ({ outcome }: Seen) => {
  assert.strictEqual(outcome._tag, "OutputExceeded")
  assert.strictEqual(outcome._tag === "OutputExceeded" ? outcome.limitBytes : 0, limitBytes)
}
/** Not more on a slow machine: a test keeps all that its job writes, and a second is enough to write too much. */
const briefly = 1000

const files = (
  name: string,
  args: ReadonlyArray<string>,
  heldBy: string,
  rest: Omit<Attack, "name" | "program" | "args" | "heldBy">
): Attack => ({
  name,
  program: "files.c",
  args,
  heldBy,
  ...rest
})

export const attacks: ReadonlyArray<Attack> = [
  files("all file descriptors", ["descriptors"], "RLIMIT_NOFILE for each process", {
    needs: [],
    expect: (seen) => {
      exited(seen)
      assert.strictEqual(seen.said("opened"), "EMFILE")
      assert.isAtMost(Number(seen.said("count")), 256)
    }
  }),
  ...["/work", "/tmp", "/dev/shm"].map((place) =>
    files(
      `all inodes of ${place}, with names of any bytes`,
      ["inodes", place],
      "inode limit of the file system, memory limit",
      {
        needs: ["disk-limit"],
        limits: { diskInodes: 2000 },
        expect: (seen) => {
          exited(seen)
          assert.strictEqual(seen.said("inodes"), "ENOSPC after some")
        }
      }
    )
  ),
  files("the whole disk, also by unnamed files", ["disk"], "size of the workspace", {
    needs: ["disk-limit"],
    limits: { diskBytes: 16 * MiB },
    expect: (seen) => {
      exited(seen)
      assert.strictEqual(seen.said("file"), "ENOSPC")
      assert.strictEqual(seen.said("unnamed file"), "ENOSPC")
      assert.strictEqual(seen.said("fallocate"), "ENOSPC")
      assert.isAtMost(Number.parseInt(seen.said("written") ?? "", 10), 16)
    }
  }),
  files("a file above its size", ["disk"], "RLIMIT_FSIZE: SIGXFSZ", {
    needs: [],
    limits: { fileBytes: MiB },
    expect: ({ outcome }) => assert.deepStrictEqual(outcome, { _tag: "Signalled", phase: "run", signal: 25 })
  }),
  files("a flood on both outputs, cut", ["flood"], "pipes block while nobody reads; time limits", {
    needs: [],
    limits: { wallMs: briefly, outputBytes: MiB },
    expect: (seen) => {
      timedOut(seen)
      assert.isAbove(seen.usage.stdoutBytes ?? 0, MiB)
      assert.strictEqual(seen.usage.stdoutBytes, seen.stdout.length)
    }
  }),
  files("a flood on both outputs, ended", ["flood"], "output limit", {
    needs: [],
    limits: { outputBytes: MiB, outputPolicy: "kill" },
    expect: exceeded(MiB)
  }),
  files(
    "single bytes on both outputs in turns",
    ["drip"],
    "each piece counts with what it costs, so that the pipes block; time limits",
    {
      needs: [],
      limits: { wallMs: briefly, outputBytes: MiB },
      expect: (seen) => {
        timedOut(seen)
        assert.match(seen.stdout, /^x+$/)
        assert.strictEqual(seen.usage.stdoutBytes, seen.stdout.length)
      }
    }
  ),
  files("nothing but ends of lines", ["lines"], "output limit", {
    needs: [],
    limits: { outputBytes: MiB, outputPolicy: "kill" },
    expect: exceeded(MiB)
  }),
  files(
    "output pipes that are read, resized and kept open by others",
    ["thief"],
    "a phase ends with its main process, and what is in the pipes then",
    {
      needs: [],
      expect: (seen) => {
        exited(seen)
        assert.strictEqual(seen.lines.at(-1), "end")
      }
    }
  ),
  files(
    "artefacts swapped for links while they are got",
    ["race"],
    "all processes are dead before; paths are resolved beneath the workspace, through no link",
    {
      needs: [],
      artefacts: ["dir/passwd", "dir/shadow", "file", "dir"],
      expect: (seen) => {
        exited(seen)
        assert.strictEqual(seen.stdout, "racing\n")
        for (const [path, bytes] of seen.artefacts) assert.include(["own", ""], bytes.toString(), path)
      }
    }
  ),
  files(
    "artefacts that are links, fifos, devices, sockets, sparse or too large",
    ["odd"],
    "regular files of the workspace only, opened as the job and without waiting; 16 MiB together",
    {
      needs: [],
      artefacts: [
        "hard",
        "fifo",
        "whiteout",
        "sparse",
        "big",
        "big2",
        "link",
        "environ",
        "up/etc/passwd",
        "up",
        "loop",
        "zero",
        "guest-link",
        "socket",
        "locked",
        "leased",
        "closed",
        "closed/x",
        "good"
      ],
      expect: (seen) => {
        exited(seen)
        nothingDone(seen)
        // 12 MiB of nothing and "good": the second of 12 does not fit, `locked` is closed to its owner, too.
        assert.deepStrictEqual([...seen.artefacts.keys()], ["big", "leased", "good"])
        assert.strictEqual(seen.artefacts.get("big")?.length, 12 * MiB)
        assert.strictEqual(seen.artefacts.get("good")?.toString(), "good")
      }
    }
  ),
  files(
    "a tree deeper than any path is long, closed directories",
    ["deep"],
    "the workspace goes with its mount namespace; on a host's disk it is removed step by step",
    {
      needs: [],
      limits: { diskInodes: 20_000 },
      expect: (seen) => {
        exited(seen)
        assert.strictEqual(seen.said("deep"), "enough")
      }
    }
  ),
  files(
    "writing outside: unnamed files, modes, times, leases, freezing, sync, a program in memory",
    ["outside"],
    "read-only mounts, no capability, no new privileges",
    {
      needs: ["isolation"],
      expect: (seen) => {
        exited(seen)
        nothingDone(seen)
        assert.isAbove(seen.lines.length, 30)
        assert.strictEqual(seen.said("uid"), "1000")
        assert.strictEqual(seen.said("new privileges"), "0")
      }
    }
  ),
  files(
    "flushing the host's disk, dropping its cache",
    ["flushes"],
    "seccomp: done without the kernel, since all a job can write lies in memory",
    {
      needs: ["isolation"],
      expect: (seen) => {
        exited(seen)
        nothingDone(seen)
        for (const call of ["fsync", "fdatasync", "msync", "advice"]) {
          assert.strictEqual(seen.said(call), "not the kernel's", call)
        }
        for (const call of ["other advice", "own file"]) assert.strictEqual(seen.said(call), "fine", call)
      }
    }
  ),
  files(
    "pages of a host file, by private mapping and pipe (CVE-2016-5195, CVE-2022-0847)",
    ["dirty", "/usr/bin/env"],
    "read-only file, and a kernel without these faults",
    {
      needs: [],
      expect: (seen) => {
        exited(seen)
        nothingDone(seen)
        assert.strictEqual(seen.said("file"), "as it was")
      }
    }
  ),
  {
    name: "a compiler that is to read the host's files",
    heldBy: "the compiler runs in the sandbox: /etc/shadow is not there",
    program: "include.c",
    source: "include.c",
    needs: ["isolation"],
    expect: (seen) => {
      assert.deepStrictEqual(seen.outcome, { _tag: "Exited", phase: "compile", code: 1 })
      assert.include(seen.stderr, "/etc/shadow")
      assert.notInclude(seen.stderr, "root:")
    }
  }
]
