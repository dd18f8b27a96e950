/** Many processes, daemons that want to stay, and signals nobody answers. */
import { assert } from "@effect/vitest"
import { slowly } from "../support/Slowness.ts"
import type { Attack, Seen } from "./Attack.ts"

const stopped = ({ outcome }: Seen) => assert.deepStrictEqual(outcome, { _tag: "Stopped", reason: "enough" })
const exited = (code: number) => ({ outcome }: Seen) =>
  assert.deepStrictEqual(outcome, { _tag: "Exited", phase: "run", code })
const held = (pids: number) => ({ usage }: Seen) => assert.isAtMost(usage.pidsPeak ?? 0, pids)
const measured = ({ usage }: Seen) => assert.isAbove(usage.cpuMicros ?? 0, 0, "its CPU time is told")
const timedOut = ({ outcome }: Seen) => assert.strictEqual(outcome._tag, "TimedOut")

const few = { pids: 48 }
const briefly = slowly(700)

export const attacks: ReadonlyArray<Attack> = [
  {
    name: "fork bomb of the shell",
    heldBy: "pids limit; the cgroup is killed",
    program: "bomb.sh",
    needs: ["pids-limit"],
    limits: { ...few, wallMs: briefly },
    expect: (seen) => {
      assert.include(["TimedOut", "Exited"], seen.outcome._tag)
      held(48)(seen)
    }
  },
  {
    name: "bomb of threads and vfork",
    heldBy: "pids limit, which counts threads",
    program: "bombs.c",
    args: ["threads"],
    needs: ["pids-limit"],
    limits: { ...few, wallMs: briefly },
    expect: (seen) => {
      timedOut(seen)
      held(48)(seen)
      assert.match(seen.said("threads") ?? "", /EAGAIN after some/)
    }
  },
  {
    name: "daemons that make daemons, main process ends",
    heldBy: "everything of a phase dies with its main process: kill(-1) of pid 1, or the cgroup",
    program: "bombs.c",
    args: ["daemons"],
    needs: ["pids-limit"],
    limits: few,
    expect: (seen) => {
      exited(0)(seen)
      held(48)(seen)
    }
  },
  {
    name: "daemons that make daemons, main process stays",
    heldBy: "wall limit kills all",
    program: "bombs.c",
    args: ["daemons", "stay"],
    needs: ["pids-limit"],
    limits: { ...few, wallMs: briefly },
    expect: (seen) => {
      timedOut(seen)
      held(48)(seen)
      measured(seen)
    }
  },
  {
    name: "storm of orphans for pid 1 to reap",
    heldBy: "limits are watched and enforced from the host, whatever the guest is busy with",
    program: "bombs.c",
    args: ["orphans"],
    needs: ["pids-limit"],
    limits: { ...few, wallMs: briefly },
    expect: (seen) => {
      timedOut(seen)
      measured(seen)
      assert.strictEqual(seen.stdout, "up\n")
    }
  },
  {
    name: "a thousand processes, stopped at once",
    heldBy: "kill(-1) of pid 1, or the cgroup",
    program: "bombs.c",
    args: ["many", "1000"],
    needs: ["pids-limit"],
    pidsCeiling: 1100,
    limits: { pids: 1100 },
    stop: { on: "up", graceMs: 0 },
    expect: (seen) => {
      stopped(seen)
      assert.strictEqual(seen.stdout, "1000 processes, up\n")
      // Not every kernel counts the peak.
      if (seen.usage.pidsPeak !== undefined) assert.isAtLeast(seen.usage.pidsPeak, 1000)
      process.stdout.write(
        `${seen.driver}: 1000 processes ended ${Math.round(seen.stoppedMs ?? 0)} ms after the stop\n`
      )
      assert.isBelow(seen.stoppedMs ?? Infinity, slowly(2000))
    }
  },
  {
    name: "deaf to all signals",
    heldBy: "KILL after the grace",
    program: "bombs.c",
    args: ["deaf"],
    needs: [],
    stop: { on: "up", graceMs: 300 },
    expect: (seen) => {
      stopped(seen)
      assert.isAtLeast(seen.stoppedMs ?? 0, 290)
      assert.isBelow(seen.stoppedMs ?? Infinity, slowly(3000))
    }
  },
  {
    name: "a stop is one TERM, then KILL",
    heldBy: "the guest signals the main process's group, and itself only if it left that",
    program: "bombs.c",
    args: ["count"],
    needs: [],
    stop: { on: "up", graceMs: 400 },
    expect: (seen) => {
      stopped(seen)
      assert.deepStrictEqual(seen.lines, ["up", "signal 15"])
    }
  },
  {
    name: "a main process that left its group gets its TERM",
    heldBy: "the guest signals the main process's group, and itself only if it left that",
    program: "bombs.c",
    args: ["elsewhere"],
    needs: [],
    stop: { on: "up", graceMs: 400 },
    expect: (seen) => {
      stopped(seen)
      assert.deepStrictEqual(seen.lines, ["up", "signal 15"])
    }
  },
  {
    name: "SIGSTOP for all of itself",
    heldBy: "wall limit; KILL ends what is stopped",
    program: "bombs.c",
    args: ["stopped"],
    needs: [],
    limits: { wallMs: briefly },
    expect: timedOut
  },
  {
    name: "system calls that nobody answers (seccomp user notification)",
    heldBy: "KILL ends who waits for an answer",
    program: "bombs.c",
    args: ["unanswered"],
    needs: [],
    stop: { on: "up", graceMs: 100 },
    expect: stopped
  },
  {
    name: "tracees stopped at their exit",
    heldBy: "KILL ends tracer and tracee",
    program: "bombs.c",
    args: ["traced"],
    needs: [],
    expect: exited(0)
  },
  {
    name: "a first thread that is gone while others stay",
    heldBy: "the process is reaped once all its threads are gone: wall limit",
    program: "bombs.c",
    args: ["headless"],
    needs: [],
    limits: { wallMs: briefly },
    expect: timedOut
  },
  {
    name: "a script whose interpreter is missing",
    heldBy: "told as what it is: rejected, it cannot be started",
    program: "orphaned-script",
    needs: [],
    expect: ({ outcome }) => assert.strictEqual(outcome._tag, "Rejected")
  }
]
