/** Sandboxes with a network: what they add to a recipe. */
import { Effect } from "effect"
import { readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { InstanceId, SandboxId } from "../../../schemas/Ids.ts"
import type { SandboxClass } from "../../../schemas/SandboxClass.ts"
import type { Cgroup } from "../../cgroup/Cgroup.ts"
import { rootsOf, SHOWN_AT } from "../../host/Watchdog.ts"
import type { Attachment } from "../../network/Network.ts"
import * as HostNetwork from "../HostNetwork.ts"
import type { HostSandbox, Recipe } from "../HostSandbox.ts"
import { ProvisionFailed } from "../Sandbox.ts"
import type { BundleOptions } from "./Bundle.ts"

const failed = (
  { reason, remedy, cause }: { readonly reason: string; readonly remedy: string; readonly cause?: unknown }
) => new ProvisionFailed({ driver: "oci", step: "network", reason, remedy, cause })

const resolvConfOf = (id: SandboxId) => `resolv-${id}`

/** Network namespaces of the guests among these processes, as inodes; a runtime stays in the host's. */
const namespacesOf = (pids: ReadonlyArray<number>): ReadonlyArray<number> =>
  pids.filter((pid) => /^Name:\s*guest$/m.test(readFileSync(`/proc/${pid}/status`, "utf8")))
    .map((pid) => statSync(`/proc/${pid}/ns/net`).ino)

/** `plain` is a recipe without a network: whatever runs for networks gets its row and cgroup by it. */
export const make = Effect.fnUntraced(function*(hosted: HostSandbox, plain: () => Recipe) {
  const { host } = hosted
  const instanceDirectory = (instance: InstanceId) => hosted.instancePath(instance)

  const network = yield* HostNetwork.make(hosted, plain)

  /** Made, with the sandbox's resolv.conf where the runtime finds it. */
  const attach = (id: SandboxId, sandboxClass: SandboxClass) =>
    Effect.gen(function*() {
      const attachment = yield* Effect.mapError(network.acquire(id, sandboxClass), failed)
      const file = join(rootsOf(instanceDirectory(host.instance)), resolvConfOf(id))
      yield* Effect.try({
        try: () => writeFileSync(file, attachment.resolvConf, { mode: 0o644 }),
        catch: (cause) =>
          failed({ reason: `${file} could not be written`, remedy: "Is the state directory full?", cause })
      })
      const bundle: NonNullable<BundleOptions["network"]> = {
        path: attachment.path,
        resolvConf: join(SHOWN_AT, resolvConfOf(id))
      }
      return { attachment, bundle }
    })

  const astray = (cause?: unknown) =>
    failed({
      reason: "the guest is not in the network namespace that was made for it",
      remedy: "This runtime does not join namespaces by path; no job is run with it.",
      cause
    })

  /** The guest is where the rules are, or no job is run. */
  const verify = Effect.fnUntraced(function*(cgroup: Cgroup, attachment: Attachment | undefined) {
    const pids = yield* Effect.mapError(cgroup.pids, astray)
    const found = yield* Effect.try({ try: () => namespacesOf(pids), catch: astray })
    if (found.length === 0 || found.some((one) => one !== attachment?.inode)) return yield* astray()
  })

  return {
    attach,
    verify,
    /** For every recipe: a dead worker's row does not tell its class. */
    network,
    paths: (instance: InstanceId, id: SandboxId): ReadonlyArray<string> => [
      join(rootsOf(instanceDirectory(instance)), resolvConfOf(id)),
      hosted.instancePath(instance, "bundles", id)
    ]
  }
})
