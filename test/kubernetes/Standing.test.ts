/** What Kubernetes says, made out: every way a pod can fail, and how long is waited for which. */
import { assert, describe, it } from "@effect/vitest"
import type { Seen } from "../../src/layers/kubernetes/Kubernetes.ts"
import type { Condition, Job, Pod } from "../../src/layers/kubernetes/Objects.ts"
import { standingOf } from "../../src/layers/kubernetes/Standing.ts"
import { standardDefaults } from "../../src/schemas/Limits.ts"
import type { Phase } from "../../src/schemas/Program.ts"

const phase: Phase = { name: "run", argv: ["x"], env: {}, stdin: new Uint8Array(), limits: standardDefaults }

const meta = (name: string, more: object = {}) => ({ name, uid: name, resourceVersion: "1", ...more })

type PodStatus = NonNullable<Pod["status"]>
type State = NonNullable<NonNullable<PodStatus["containerStatuses"]>[number]["state"]>

const podOf = (status: PodStatus, more: { readonly isLeaving?: boolean; readonly node?: string } = {}): Pod => ({
  metadata: meta("pod", more.isLeaving === true ? { deletionTimestamp: "2026-01-01T00:00:00Z" } : {}),
  spec: { nodeName: more.node ?? "node" },
  status
})
const statusOf = (state: State, more: PodStatus = {}): PodStatus => ({
  ...more,
  containerStatuses: [{ name: "main", state }]
})
const condition = (type: string, reason: string, message = "", status = "True"): Condition => ({
  type,
  status,
  reason,
  message
})
const terminated = (exitCode: number, reason: string, more: object = {}): State => ({
  terminated: { exitCode, reason, startedAt: "2026-01-01T00:00:00Z", finishedAt: "2026-01-01T00:00:05Z", ...more }
})

const look = (
  pod: Pod | undefined,
  options: {
    readonly conditions?: ReadonlyArray<Condition>
    readonly isJobGone?: boolean
    readonly isPodGone?: boolean
  } = {}
) => {
  const job: Job = { metadata: meta("job"), status: { conditions: options.conditions ?? [] } }
  const seen: Seen = {
    job,
    isJobGone: options.isJobGone ?? false,
    pods: pod === undefined ? [] : [{ pod, isGone: options.isPodGone ?? false }]
  }
  return standingOf(seen, phase, "image:1", 300_000)
}

const said = (...given: Parameters<typeof look>): string => {
  const { end } = look(...given)
  if (end === undefined) return "goes on"
  const { outcome } = end
  const what = outcome._tag === "Rejected" || outcome._tag === "SandboxFailed"
    ? `${outcome._tag}: ${outcome.reason}`
    : outcome._tag === "Exited"
    ? `Exited ${outcome.code}`
    : outcome._tag === "Signalled"
    ? `Signalled ${outcome.signal}`
    : outcome._tag
  return `${end.afterMs / 1000} s ${what}`
}

const waiting = (reason: string, message = "") =>
  podOf(statusOf({ waiting: { reason, message } }, { phase: "Pending" }))
const deadline = condition("Failed", "DeadlineExceeded")

describe("what a Job and its pod amount to", () => {
  const cases: ReadonlyArray<readonly [string, Parameters<typeof look>, string | RegExp]> = [
    ["runs", [podOf(statusOf({ running: { startedAt: "2026-01-01T00:00:00Z" } }, { phase: "Running" }))], "goes on"],
    ["is being made", [waiting("ContainerCreating")], "goes on"],
    ["exited", [podOf(statusOf(terminated(3, "Error")))], "0 s Exited 3"],
    ["died of SIGKILL by status", [podOf(statusOf(terminated(137, "Error")))], "0 s Signalled 9"],
    ["died of a signal that was told", [podOf(statusOf(terminated(1, "Error", { signal: 11 })))], "0 s Signalled 11"],
    ["status 255 is no signal", [podOf(statusOf(terminated(255, "Error")))], "0 s Exited 255"],
    ["ran out of memory", [podOf(statusOf(terminated(137, "OOMKilled")))], "0 s OutOfMemory"],
    [
      "program missing",
      [podOf(statusOf(terminated(128, "StartError", { message: "exec: not found" })))],
      /^0 s Rejected: the program cannot be started: exec/
    ],
    ["docker's word for it", [podOf(statusOf(terminated(127, "ContainerCannotRun")))], /^0 s Rejected: the program/],
    [
      "node lost sight",
      [podOf(statusOf(terminated(137, "ContainerStatusUnknown")))],
      /^0 s SandboxFailed: its node lost sight/
    ],
    ["image not there", [waiting("ErrImagePull", "x: not found")], /^0 s Rejected: the image image:1 cannot be pulled/],
    ["image denied", [waiting("ErrImagePull", "pull access denied")], /^0 s Rejected: the image/],
    [
      "registry away",
      [waiting("ErrImagePull", "i/o timeout")],
      /^60 s SandboxFailed: the image image:1 could not be pulled/
    ],
    ["and backs off", [waiting("ImagePullBackOff", "Back-off pulling image")], /^60 s SandboxFailed: the image/],
    ["no image's name", [waiting("InvalidImageName")], /^0 s Rejected: the image image:1 cannot be used/],
    ["never pulled", [waiting("ErrImageNeverPull")], /^0 s Rejected: the image/],
    [
      "secret missing",
      [waiting("CreateContainerConfigError", "secret \"x\" not found")],
      /^30 s Rejected: .*secret "x" not found/
    ],
    [
      "runtime fails",
      [waiting("CreateContainerError", "context deadline exceeded")],
      /^30 s SandboxFailed: the node could not/
    ],
    [
      "runtime finds no program",
      [waiting("RunContainerError", "executable file not found in $PATH")],
      /^30 s Rejected: the program/
    ],
    ["no pod", [undefined], /^300 s SandboxFailed: the cluster made no pod in 300 s/],
    [
      "no node",
      [podOf({ phase: "Pending", conditions: [condition("PodScheduled", "Unschedulable", "0/3 nodes", "False")] }, {
        node: ""
      })],
      /^300 s SandboxFailed: no node took the pod in 300 s: 0\/3 nodes/
    ],
    [
      "evicted",
      [podOf({ phase: "Failed", reason: "Evicted", message: "low on memory" })],
      /^0 s SandboxFailed: the pod was evicted: low on memory/
    ],
    [
      "evicted, with its container's end",
      [podOf(statusOf(terminated(137, "Error"), { phase: "Failed", reason: "Evicted" }))],
      /^0 s SandboxFailed: the pod was evicted/
    ],
    ["node lost", [podOf({ phase: "Failed", reason: "NodeLost" })], /^0 s SandboxFailed: the pod's node is lost/],
    [
      "node shut down",
      [podOf({ phase: "Failed", reason: "Terminated", message: "node shutdown" })],
      /^0 s SandboxFailed: the pod failed \(Terminated\): node shutdown/
    ],
    [
      "refused by its node",
      [podOf({ phase: "Failed", reason: "OutOfcpu" })],
      /^0 s SandboxFailed: the pod failed \(OutOfcpu\)/
    ],
    [
      "taken away by a taint",
      [
        podOf(
          statusOf({ running: {} }, {
            conditions: [condition("DisruptionTarget", "DeletionByTaintManager", "unreachable")]
          }),
          {
            isLeaving: true
          }
        )
      ],
      /^60 s SandboxFailed: the pod was taken away \(DeletionByTaintManager\): unreachable: its node does not answer/
    ],
    [
      "ended well although it was told to go",
      [podOf(statusOf(terminated(0, "Completed")), { isLeaving: true })],
      "0 s Exited 0"
    ],
    [
      "deleted by somebody",
      [podOf(statusOf(terminated(143, "Error")), { isLeaving: true })],
      /^3 s SandboxFailed: the pod was deleted by somebody else/
    ],
    [
      "late",
      [podOf(statusOf(terminated(143, "Error")), { isLeaving: true }), { conditions: [deadline] }],
      "0 s TimedOut"
    ],
    [
      "late before it began",
      [undefined, { conditions: [deadline] }],
      /^0 s SandboxFailed: the pod did not begin before/
    ],
    [
      "the Job deleted",
      [podOf(statusOf({ running: {} })), { isJobGone: true }],
      /^0 s SandboxFailed: the Job job was deleted by somebody else/
    ],
    ["the Job deleted after the end", [podOf(statusOf(terminated(4, "Error"))), { isJobGone: true }], "0 s Exited 4"],
    ["done, its pod unseen", [undefined, { conditions: [condition("Complete", "")] }], "3 s Exited 0"],
    [
      "failed, its pod not yet told",
      [podOf(statusOf({ running: {} })), { conditions: [condition("Failed", "BackoffLimitExceeded", "limit")] }],
      /^3 s SandboxFailed: the Job failed, and its pod does not say why: BackoffLimitExceeded/
    ]
  ]
  for (const [name, given, expected] of cases) {
    it(`${name}`, () => {
      if (typeof expected === "string") assert.strictEqual(said(...given), expected)
      else assert.match(said(...given), expected)
    })
  }

  it("a pod that could not be started has no output to read", () => {
    assert.isUndefined(look(podOf(statusOf(terminated(128, "StartError")))).pod)
    assert.strictEqual(look(podOf(statusOf(terminated(1, "Error")))).pod, "pod")
  })
})

describe("a pod that a cluster before 1.26 put in place of one that was deleted", () => {
  const running = (name: string, startedAt: string, more: object = {}): Pod => ({
    metadata: meta(name, more),
    spec: { nodeName: "node" },
    status: statusOf({ running: { startedAt } }, { phase: "Running" })
  })
  const job: Job = { metadata: meta("job"), status: { conditions: [] } }
  const leaving = { deletionTimestamp: "2026-01-01T00:00:09Z" }
  const first = running("z-first", "2026-01-01T00:00:00Z", leaving)
  const second = running("a-second", "2026-01-01T00:00:09Z")

  it("is not the job's run: the first one's end is told at once", () => {
    for (const isGone of [false, true]) {
      const seen: Seen = { job, isJobGone: false, pods: [{ pod: second, isGone: false }, { pod: first, isGone }] }
      const { end, pod } = standingOf(seen, phase, "image:1", 300_000)
      assert.strictEqual(pod, "z-first")
      assert.strictEqual(end?.afterMs, 0)
      assert.deepInclude(end?.outcome, { _tag: "SandboxFailed", reason: "the pod was deleted by somebody else" })
    }
  })
})
