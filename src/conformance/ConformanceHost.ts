/** What the cases have to know of the place they run at, and cannot learn through the contracts. */
import { Context, type Effect } from "effect"
import type { LedgerRow } from "../layers/ledger/Ledger.ts"
import type { Capability, Driver } from "../layers/sandbox/Sandbox.ts"
import type { SandboxClass } from "../schemas/SandboxClass.ts"

/** Said by who runs the cases: each driver and cluster answers in its own way. */
export class ConformanceHost extends Context.Service<ConformanceHost, {
  /** What the driver can do: cases that need more are left out, and limits it lacks must be refused. */
  readonly capabilities: ReadonlySet<Capability>
  /** The class that is tried. Its ceiling must let a job have 512 MiB of memory and workspace, and 64 processes. */
  readonly sandboxClass: SandboxClass
  /** A class of the same driver of which no sandbox can be made, e.g. with a core or an image that is not there. */
  readonly unmakeable: SandboxClass
  /** Programs inside the sandbox: a POSIX shell beside the usual tools (`cat`, `mkdir`, `sleep` …), and Python 3. */
  readonly programs: { readonly shell: string; readonly python: string }
  /**
   * What sandboxes have left where they were made: processes, cgroups, mounts, files, ledger rows; in words for people.
   * Empty while no sandbox is there. Asked repeatedly until it is, for some seconds.
   */
  readonly leftovers: Effect.Effect<ReadonlyArray<string>>
  /** The ledger row of a sandbox that was held by a worker which has just died without a word. */
  readonly orphan: Effect.Effect<LedgerRow>
  /** How many times slower than a plain machine this one is: 1 or more. Limits and waits become longer by it. */
  readonly slowness: number
}>()("stoker/conformance/ConformanceHost") {}

/** The driver that `driverCases` try. */
export class ConformanceDriver extends Context.Service<ConformanceDriver, Driver>()(
  "stoker/conformance/ConformanceDriver"
) {}
