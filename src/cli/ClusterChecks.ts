/** What `stoker doctor` and `stoker config check` find out about a cluster: that it answers, who we are, what we may. */
import { Effect } from "effect"
import { Kubernetes, type KubernetesError, rights } from "../layers/kubernetes/Kubernetes.ts"
import * as KubernetesLive from "../layers/kubernetes/KubernetesLive.ts"
import type { Check } from "../layers/sandbox/Sandbox.ts"
import type { ClusterSetup } from "../schemas/SandboxClass.ts"

const LIMIT = "10 seconds"

const missing = (name: string, { reason, remedy }: KubernetesError): Check => ({
  name,
  status: "missing",
  detail: reason,
  remedy
})

const looked = Effect.fnUntraced(function*(setup: ClusterSetup) {
  const cluster = yield* (yield* Kubernetes).cluster(setup)
  const { account, namespace, server } = cluster
  const version = yield* Effect.result(cluster.version)
  const where: Check = { name: "cluster", status: "ok", detail: `namespace ${namespace}, by ${account}` }
  if (version._tag === "Failure") return [where, missing("API server", version.failure)]
  const answers: Check = { name: "API server", status: "ok", detail: `${version.success} at ${server}` }
  const may = yield* Effect.forEach(rights, (right) => Effect.map(cluster.may(right), (is) => ({ ...right, is })), {
    concurrency: 4
  })
  const lacking = may.filter(({ is }) => !is)
  const those = lacking.map(({ resource, verb }) => `${verb} ${resource}`).join(", ")
  const allowed: Check = lacking.length === 0
    ? { name: "rights", status: "ok", detail: `all ${rights.length} that it needs there` }
    : {
      name: "rights",
      status: "missing",
      detail: `it may not ${those} in namespace ${namespace}`,
      remedy: "Bind it to a Role that allows them; docs/kubernetes.md has one."
    }
  return [where, answers, allowed]
})

/** One cluster; whatever goes wrong is a finding. */
export const examineCluster = (setup: ClusterSetup): Effect.Effect<ReadonlyArray<Check>> =>
  looked(setup).pipe(
    Effect.timeoutOrElse({
      duration: LIMIT,
      orElse: () =>
        Effect.succeed<ReadonlyArray<Check>>([{
          name: "API server",
          status: "missing",
          detail: `no answer within ${LIMIT}`,
          remedy: "Check its address, and that it can be reached from here."
        }])
    }),
    Effect.catch((error) => Effect.succeed<ReadonlyArray<Check>>([missing("cluster", error)])),
    Effect.provide(KubernetesLive.layer())
  )
